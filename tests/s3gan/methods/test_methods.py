"""Which label table fits which method."""

import numpy as np
import pytest
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable
from s3gan.auxiliary import AUXILIARY
from s3gan.methods import METHODS, MethodName

SAMPLES = 6
FITTING = {
    "supervised": {"true"},
    "single_label": {"single"},
    "random_label": {"random"},
    "clustering": {"cluster"},
    "clustering_ss": {"cluster"},
    "self_conditioned": {"cluster", "random"},
    "self_conditioned_ss": {"cluster", "random"},
    "s2gan": {"true", "inferred"},
    "s3gan": {"true", "inferred"},
    "labelled_only": {"true"},
    "single_label_ss": {"single"},
    "ssgan": {"single"},
    "s2gan_co": {"true"},
    "s3gan_co": {"true"},
}
PARTIAL = {"labelled_only", "s2gan_co", "s3gan_co"}
WITHOUT_TABLE = {"single_label", "single_label_ss", "ssgan", "random_label", "self_conditioned", "self_conditioned_ss"}
ROTATING = {"clustering_ss", "self_conditioned_ss", "s3gan", "single_label_ss", "ssgan", "s3gan_co"}


def table(*origins: str, made_by: str = "somebody") -> LabelTable:
    count = len(origins)
    keys = [f"000000/{number:08d}" for number in range(count)]
    metadata = {"classes": ["a", "b", "c"], "method": made_by, "fingerprint": "f"}
    return LabelTable(keys, np.zeros(count, np.int32), np.array(origins), np.ones(count, np.float32), None, metadata)


def test_every_method_has_a_name_on_the_command_line() -> None:
    assert [member.name for member in MethodName] == list(METHODS)
    assert set(METHODS) == set(FITTING)
    assert {name for name, method in METHODS.items() if "rotation" in method.heads} == ROTATING
    assert {name for name, method in METHODS.items() if "predictor" in method.heads} == {"s2gan_co", "s3gan_co"}
    assert {name for name, method in METHODS.items() if not method.projection} == {"ssgan"}
    assert {head for method in METHODS.values() for head in method.heads} <= set(AUXILIARY)


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("origin", ["true", "inferred", "cluster", "single", "random"])
def test_a_method_takes_the_tables_that_fit_and_refuses_the_others(name: str, origin: str) -> None:
    whole = table(*[origin] * SAMPLES, made_by="a kind")
    if origin in FITTING[name]:
        METHODS[name].check(whole, SAMPLES)
    else:
        with pytest.raises(UserError, match=f"method={name} .*a kind.*{origin}"):
            METHODS[name].check(whole, SAMPLES)


def test_a_table_of_a_budget_and_inferred_labels_fits_s3gan() -> None:
    METHODS["s3gan"].check(table("true", *["inferred"] * (SAMPLES - 1)), SAMPLES)


@pytest.mark.parametrize("name", sorted(set(FITTING) - PARTIAL))
def test_a_partial_table_is_refused_with_both_counts(name: str) -> None:
    part = table(*[min(FITTING[name])] * 2)
    with pytest.raises(UserError, match=f"covers 2 of {SAMPLES}"):
        METHODS[name].check(part, SAMPLES)


@pytest.mark.parametrize("name", sorted(set(FITTING) - WITHOUT_TABLE))
def test_a_method_on_labels_needs_a_table(name: str) -> None:
    with pytest.raises(UserError, match="needs labels="):
        METHODS[name].check(None, SAMPLES)


def test_conditions_of_fakes_are_uniform_for_classes_and_follow_the_sizes_of_clusters() -> None:
    counts = np.array([1, 2, 5])
    assert METHODS["s3gan"].fake_weights(counts) is None
    np.testing.assert_allclose(METHODS["clustering"].fake_weights(counts), [1 / 8, 2 / 8, 5 / 8])


def test_a_class_without_real_images_gets_no_fakes() -> None:
    np.testing.assert_allclose(METHODS["s3gan"].fake_weights(np.array([4, 0, 1])), [0.5, 0, 0.5])


def test_single_and_random_labels_need_no_table() -> None:
    single, random = METHODS["single_label"], METHODS["random_label"]
    unlabelled, drawn = torch.full((4,), -1), torch.tensor([2, 0, 1, 2])
    single.check(None, SAMPLES)
    random.check(None, SAMPLES)
    assert single.class_names(None, 0) == ["all"]
    assert random.class_names(None, 3) == ["0", "1", "2"]
    assert single.real_labels(unlabelled, lambda: drawn).tolist() == [0, 0, 0, 0]
    assert random.real_labels(unlabelled, lambda: drawn).tolist() == [2, 0, 1, 2]
    assert random.real_labels(torch.tensor([1, 1, 0, 2]), lambda: drawn).tolist() == [1, 1, 0, 2]


def test_random_labels_without_a_table_need_a_number_of_classes() -> None:
    with pytest.raises(UserError, match="classes=0"):
        METHODS["random_label"].class_names(None, 0)


def test_clusters_that_nobody_gave_need_a_number_and_have_numbers_for_names() -> None:
    method = METHODS["self_conditioned"]
    assert method.class_names(None, 2) == ["cluster 0", "cluster 1"]
    assert method.class_names(table("random"), 0) == ["cluster 0", "cluster 1", "cluster 2"]
    with pytest.raises(UserError, match="classes=0"):
        method.class_names(None, 0)


@pytest.mark.parametrize("name", sorted(PARTIAL))
def test_a_partial_table_fits_methods_that_learn_from_a_part(name: str) -> None:
    METHODS[name].check(table("true", "true"), SAMPLES)


def test_labelled_only_trains_on_the_labelled_samples_and_the_others_on_all() -> None:
    labels = np.array([-1, 2, -1, 0])
    assert METHODS["labelled_only"].subset(labels).tolist() == [1, 3]
    assert all(method.subset(labels) is None for name, method in METHODS.items() if name != "labelled_only")
