import numpy as np
import pytest
import torch

from cluster_jobs.cli.config import CommandKeys
from cluster_jobs.data.label_table import LabelTable, write_table
from cluster_jobs.distributed.job import Job
from s3gan.metrics import cas, classes, labelled
from s3gan.metrics.trained import NotAvailable
from selfsup.labelling.classifier import ClassifierRecipe
from tests.selfsup.toy_shards import make_shards

RECIPE = ClassifierRecipe(width=4, steps=40, batch=16, shift=0)


@pytest.fixture
def job():
    return Job.open(CommandKeys(threads=1))


def shades(labels, seed=0):
    """Images uint8 (N, 1, 8, 8) that show their label as brightness."""
    noise = np.random.RandomState(seed).randint(0, 30, (len(labels), 1, 8, 8))
    return (noise + 90 * np.asarray(labels)[:, None, None, None]).astype(np.uint8)


def test_a_classifier_trained_on_separable_images_is_right_on_those_like_them(job, tmp_path):
    train = labelled.from_arrays(shades([0, 1] * 20), np.array([0, 1] * 20))
    test = labelled.from_arrays(shades([1, 0, 1, 1], seed=1), np.array([1, 0, 1, 1]))
    found = cas.train_and_test(train, test, 3, RECIPE, seed=0, cache=tmp_path, job=job)
    assert found.accuracy == 1
    assert found.per_class == [1, 1, None]  # the third class has no test image
    assert found.confusion == [[1, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert (found.train_count, found.test_count) == (40, 4)


def test_the_confusion_matrix_counts_every_pair():
    true, predicted = np.random.RandomState(0).randint(0, 4, (2, 100))
    expected = [[sum((true == t) & (predicted == p)) for p in range(4)] for t in range(4)]
    confusion = cas.confusion_matrix(true, predicted, 4)
    assert confusion.tolist() == expected
    accuracy, per_class = cas.accuracies(confusion)
    assert accuracy == pytest.approx((true == predicted).mean())
    assert per_class == pytest.approx([(predicted[true == t] == t).mean() for t in range(4)])


def test_no_test_labels_or_a_single_class_make_the_score_not_available(job, tmp_path):
    both = labelled.from_arrays(shades([0, 1]), np.array([0, 1]))
    none = labelled.from_arrays(shades([0, 1]), np.array([-1, -1]))
    with pytest.raises(NotAvailable, match="no test image has a label"):
        cas.train_and_test(both, none, 2, RECIPE, seed=0, cache=tmp_path, job=job)
    one = labelled.from_arrays(shades([1, 1]), np.array([1, 1]))
    with pytest.raises(NotAvailable, match="1 classes have images with labels, a classifier needs 2"):
        cas.train_and_test(one, both, 2, RECIPE, seed=0, cache=tmp_path, job=job)


def test_joined_and_relabelled_sets_hold_the_right_pictures(tmp_path):
    images = np.arange(12 * 64, dtype=np.uint32).astype(np.uint8).reshape(12, 1, 8, 8)
    shards = make_shards(tmp_path / "shards", [5], [0, None, 2, 1, None], images=images[:5])
    first = labelled.from_shards(shards, shards.hidden_labels())
    second = labelled.from_arrays(images[5:], np.array([0, 1, 2, 0, 1, -1, 2]))
    both = labelled.joined(first, second)
    expected = images[[0, 2, 3, 5, 6, 7, 8, 9, 11]]
    assert both.labels.tolist() == [0, 2, 1, 0, 1, 2, 0, 1, 2]
    order = np.random.RandomState(0).permutation(9)
    np.testing.assert_array_equal(both.images[order].numpy(), expected[order])
    np.testing.assert_array_equal(both.images[np.array([0, 2])].numpy(), expected[[0, 2]])
    changed = labelled.relabelled(both, np.array([-1, 5, 5, -1, -1, -1, -1, -1, 3]))
    assert changed.labels.tolist() == [5, 5, 3]
    np.testing.assert_array_equal(torch.as_tensor(changed.images[np.arange(3)]).numpy(), expected[[1, 2, 8]])


def test_a_set_is_named_by_its_pictures_and_labels(tmp_path):
    images, labels = shades([0, 1, 0]), np.array([0, 1, 0])
    changed = images.copy()
    changed[0, 0, 0, 0] += 1
    sets = [labelled.from_arrays(images, labels), labelled.from_arrays(changed, labels)]
    sets += [labelled.from_arrays(images, np.array([0, 1, 1])), labelled.joined(sets[0], sets[1])]
    sets.append(labelled.joined(sets[1], sets[0]))
    assert len({data.identity for data in sets}) == len(sets)
    assert labelled.from_arrays(images.copy(), labels.copy()).identity == sets[0].identity


def test_a_keyed_choice_is_ascending_distinct_and_of_the_asked_size():
    chosen = labelled.choose(100, 30, seed=0)
    assert len(set(chosen.tolist())) == 30 and (np.diff(chosen) > 0).all() and chosen.max() < 100
    assert labelled.choose(100, 0, seed=0).tolist() == labelled.choose(100, 100, seed=0).tolist() == list(range(100))
    assert labelled.choose(100, 30, seed=1).tolist() != chosen.tolist()


def test_a_cluster_stands_for_the_budgets_majority_in_it():
    clusters = np.array([0, 0, 0, 1, 1, 3, 3, 2, -1])
    labels = np.array([2, 2, 1, 1, 0, -1, 1, -1, 0])
    assert classes.classes_by_majority(clusters, labels, 5).tolist() == [2, 0, -1, 1, -1]  # 0 and 1 tie in cluster 1


NAMES = ["cat", "dog", "éléphant blanc"]


def table(shards, path, labels, origin, names, method):
    rows = np.flatnonzero(np.array(labels) >= 0)
    found = LabelTable(
        [shards.key(row) for row in rows.tolist()],
        np.array(labels)[rows],
        np.array(origin)[rows],
        np.ones(len(rows), np.float32),
        metadata={"classes": names, "fingerprint": shards.fingerprint, "method": method},
    )
    write_table(path, found)
    return {**found.metadata, "path": str(path)}


def test_the_budget_is_the_true_rows_of_the_runs_own_table_unless_one_is_given(tmp_path):
    shards = make_shards(tmp_path / "train", [5], [0, 1, 2, 0, 1])
    origin = ["true", "inferred", "true", "inferred", "inferred"]
    own = table(shards, tmp_path / "inferred.parquet", [0, 0, 2, 0, 1], origin, NAMES, "classifier")
    assert classes.budget_labels("", own, shards, NAMES).tolist() == [0, -1, 2, -1, -1]
    turned = ["dog", "cat"]  # the user's numbers, by name
    table(shards, tmp_path / "own.parquet", [-1, 0, -1, -1, 1], ["true"] * 5, turned, "import")
    assert classes.budget_labels(str(tmp_path / "own.parquet"), own, shards, NAMES).tolist() == [-1, 1, -1, -1, 0]
    clusters = table(shards, tmp_path / "c.parquet", [0, 1, 0, 1, 0], ["cluster"] * 5, ["c0", "c1"], "kmeans")
    with pytest.raises(NotAvailable, match="holds no revealed labels; budget=TABLE"):
        classes.budget_labels("", clusters, shards, NAMES)
    with pytest.raises(NotAvailable, match="budget=TABLE"):
        classes.budget_labels("", {}, shards, NAMES)


def test_pool_classes_go_by_name_clusters_by_majority_and_uninformed_ones_not_at_all(tmp_path):
    shards = make_shards(tmp_path / "train", [5], [0, 1, 2, 0, 1])
    clusters = table(shards, tmp_path / "c.parquet", [0, 1, 0, 1, 0], ["cluster"] * 5, ["c0", "c1", "c2"], "kmeans")

    def known():
        return np.array([2, -1, 2, 0, 1])

    def unknown():
        raise NotAvailable("no budget")

    assert classes.pool_classes(["c0", "c1", "c2"], clusters, shards, NAMES, known).tolist() == [2, 0, -1]
    with pytest.raises(NotAvailable, match="no budget"):
        classes.pool_classes(["c0", "c1", "c2"], clusters, shards, NAMES, unknown)
    assert classes.pool_classes(["dog", "fish", "cat"], {}, shards, NAMES, unknown).tolist() == [1, -1, 0]
    with pytest.raises(NotAvailable, match="no class of the pool"):
        classes.pool_classes(["fish"], {}, shards, NAMES, unknown)
    for method in ("single", "random", "none"):
        with pytest.raises(NotAvailable, match=f"method {method!r}"):
            classes.pool_classes(["cat"], {"method": method}, shards, NAMES, known)
