"""Filtered pools against brute force: every attempt at every sample is made and judged alone."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.core import seeds
from cluster_jobs.core.files import read_json
from cluster_jobs.data import pool as data_pool
from cluster_jobs.data.shards import Shards
from s3gan import generate
from s3gan.inference.loading import load_discriminator, load_generator
from s3gan.inference.sampling import draw_noise, make_images, plan_labels
from s3gan.networks import Discriminator
from s3gan.pools import directory as pools
from s3gan.pools import filters
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.classifier import Classifier, load_classifier, save_classifier
from tests.s3gan.test_generate import LAUNCH, content, pool, start
from tests.s3gan.toy_classifier import make_classifier
from tests.s3gan.toy_run import make_run

NAMES = ["cat", "dog", "éléphant blanc"]
CPU = torch.device("cpu")
FEW = "calibration=40"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run and, beside it, the classifier of a table `inferred.parquet`."""
    directory = tmp_path_factory.mktemp("template")
    make_run(directory / "run")
    make_classifier(directory / "inferred.parquet", directory / "run")
    return directory


@pytest.fixture
def run(tmp_path, template):
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(data_pool, "SHARD_SAMPLES", 20)


def agree(run):
    return f"agree={run.parent}/inferred.parquet"


def images_of(run, seed, indices, labels, attempts=None):
    """Images uint8 (n, C, H, W) for the keyed noise, made without the code that rejects."""
    generator, _ = load_generator(run)
    attempts = attempts or [0] * len(indices)
    return np.concatenate(
        [
            make_images(
                generator,
                draw_noise(seed, indices[at : at + 100], generator.z_dim, attempts=attempts[at : at + 100]),
                torch.tensor(labels[at : at + 100]),
                100,
                CPU,
            )
            for at in range(0, len(indices), 100)
        ]
    )


@torch.no_grad()
def judge(run, images, labels) -> tuple[np.ndarray, np.ndarray]:
    """The discriminator's scores (n,) and the classifier's probabilities (n, classes) of stored images."""
    pictures = torch.from_numpy(images).float() / 127.5 - 1
    discriminator: Discriminator = load_discriminator(run)[0]
    classifier: Classifier = load_classifier(run.parent / "inferred.parquet", "cpu")
    scores = discriminator(pictures, torch.tensor(labels)).score
    return scores.numpy(), classifier(pictures).softmax(1).numpy()


def test_a_filtered_pool_holds_each_samples_first_attempt_that_every_filter_keeps(run, tmp_path, small_shards):
    words = ["count=50", "seed=3", "keep_score=0.4", agree(run), "agree_min=0.5", FEW, "tries=60"]
    assert pool(run, tmp_path / "pool", *words) == 0
    shards, made = Shards(tmp_path / "pool"), read_json(tmp_path / "pool" / "pool.json")
    labels = plan_labels(50, np.full(3, 1 / 3), 3)
    assert shards.hidden_labels().tolist() == labels.tolist() and shards.shard_counts.tolist() == [20, 20, 10]

    drawn = [label for label in range(3) for _ in range(40)]
    scores, _ = judge(run, images_of(run, seeds.derive_seed(3, "calibration"), list(range(120)), drawn), drawn)
    best = np.sort(scores.reshape(3, 40), axis=1)[:, ::-1]
    thresholds = best[:, math.ceil(0.4 * 40) - 1]
    assert list(made["calibrated"]["thresholds"]["score"]) == NAMES
    np.testing.assert_allclose(list(made["calibrated"]["thresholds"]["score"].values()), thresholds, rtol=1e-5)

    depth = 80
    candidates = [(index, attempt) for index in range(50) for attempt in range(depth)]
    indices, attempts = [index for index, _ in candidates], [attempt for _, attempt in candidates]
    classes = labels[indices].astype(int).tolist()
    images = images_of(run, 3, indices, classes, attempts)
    scores, probabilities = judge(run, images, classes)
    own = probabilities[np.arange(len(classes)), classes]
    good = (scores >= thresholds[classes]) & (probabilities.argmax(1) == classes) & (own >= 0.5)
    good, images = good.reshape(50, depth), images.reshape(50, depth, *images.shape[1:])
    assert good.any(1).all() and 0.05 < good.mean() < 0.4
    first = good.argmax(1)
    assert (first == 0).any() and first.max() > 5
    for index in range(50):
        np.testing.assert_array_equal(shards.image(index), images[index, first[index]])
    expected = np.bincount(labels, first + 1)
    assert list(made["drawn"].values()) == expected.tolist()
    np.testing.assert_allclose(list(made["kept_rate"].values()), np.bincount(labels) / expected, atol=1e-6)


def test_a_sample_whose_first_attempt_is_kept_is_that_of_the_pool_without_filters(run, tmp_path, small_shards):
    pool(run, tmp_path / "plain", "count=40")
    pool(run, tmp_path / "pool", "count=40", "keep_score=0.5", FEW)
    plain, kept = Shards(tmp_path / "plain"), Shards(tmp_path / "pool")
    same = sum(np.array_equal(plain.image(index), kept.image(index)) for index in range(40))
    thresholds = read_json(tmp_path / "pool" / "pool.json")["calibrated"]["thresholds"]["score"]
    images = np.stack([plain.image(index) for index in range(40)])
    labels = plain.hidden_labels().astype(int).tolist()
    scores, _ = judge(run, images, labels)
    assert same == (scores >= np.array(list(thresholds.values()))[labels]).sum() and 5 < same < 35


def test_every_image_of_a_pool_reaches_the_thresholds_that_pool_json_names(run, tmp_path):
    assert pool(run, tmp_path / "pool", "per_class=20", "keep_score=0.3", agree(run), FEW, "tries=60") == 0
    shards, made = Shards(tmp_path / "pool"), read_json(tmp_path / "pool" / "pool.json")
    labels = shards.hidden_labels().astype(int).tolist()
    scores, probabilities = judge(run, np.stack([shards.image(index) for index in range(60)]), labels)
    least = np.array(list(made["calibrated"]["thresholds"]["score"].values()))
    assert (scores >= least[labels] - 1e-4).all() and (probabilities.argmax(1) == labels).all()
    assert list(made["counts"].values()) == [20, 20, 20] and 0 < min(made["kept_rate"].values()) < 0.3


def test_pool_json_says_what_filtered(run, tmp_path):
    pool(run, tmp_path / "pool", "count=6", "keep_score=0.5", agree(run), "agree_min=0.4", FEW, "tries=60")
    made = read_json(tmp_path / "pool" / "pool.json")
    classifier = made["filter"]["agree"]["classifier"]
    assert made["filter"]["keep_score"] == 0.5 and made["filter"]["agree_min"] == 0.4
    assert made["filter"]["calibration"] == 40
    assert (
        classifier["class_names"] == NAMES and classifier["budget"] == {"rows": 3} and len(classifier["sha256"]) == 64
    )
    assert made["calibrated"]["thresholds"]["agreement"] == pytest.approx(dict.fromkeys(NAMES, 0.4))
    assert set(made["versions"]) == {"label-efficient-gan", "torch"} and made["versions"]["torch"] == torch.__version__
    section = read_json(tmp_path / "pool" / "report" / "pool.json")
    assert "best 50% of each class and a classifier must see" in section["text"]
    assert section["table"]["columns"] == ["class", "images", "drawn", "kept", "least score"]
    assert [picture["file"] for picture in section["pictures"]] == ["pool.png", "rejected.png"]
    assert (tmp_path / "pool" / "report" / "rejected.png").stat().st_size > 1000


def test_an_image_that_is_rejected_is_never_encoded(run, tmp_path, monkeypatch):
    encoded, encode = [], pools.encode_png
    monkeypatch.setattr(pools, "encode_png", lambda image: encoded.append(0) or encode(image))
    assert pool(run, tmp_path / "pool", "count=30", "keep_score=0.2", FEW) == 0
    assert len(encoded) == 30
    assert sum(read_json(tmp_path / "pool" / "pool.json")["drawn"].values()) > 60


def test_commands_that_share_out_a_filtered_pool_make_the_pool_of_one(run, tmp_path, small_shards):
    words = ["count=70", "keep_score=0.5", FEW]
    assert pool(run, tmp_path / "one", *words) == 0
    for part in (1, 0):
        assert pool(run, tmp_path / "shared", *words, f"part={part}", "parts=2") == 0
    assert content(tmp_path / "shared") == content(tmp_path / "one")
    assert "kept_rate" in read_json(tmp_path / "one" / "pool.json")


def test_an_unfinished_filtered_pool_goes_on_with_its_thresholds(run, tmp_path, small_shards, monkeypatch):
    words = ["count=70", "keep_score=0.5", FEW]
    pool(run, tmp_path / "whole", *words)
    write = pools._write_drawn

    def failing(out, number, drawn):
        if number == 2:
            raise KeyboardInterrupt  # the shard is there, the record of what it took is not
        write(out, number, drawn)

    monkeypatch.setattr(pools, "_write_drawn", failing)
    with pytest.raises(KeyboardInterrupt):
        pool(run, tmp_path / "pool", *words)
    written = []
    monkeypatch.setattr(pools, "_write_drawn", lambda *given: (written.append(given[1]), write(*given)))
    monkeypatch.setattr(generate, "calibrate", None)
    assert pool(run, tmp_path / "pool", *words, "tries=30") == 0
    assert written == [2, 3]
    assert content(tmp_path / "pool") == content(tmp_path / "whole")


def test_a_pool_killed_between_its_kept_rates_and_its_index_is_finished(run, tmp_path, small_shards, monkeypatch):
    words = ["count=30", "keep_score=0.5", FEW]
    pool(run, tmp_path / "whole", *words)
    finish = pools.finish_pool
    monkeypatch.setattr(pools, "finish_pool", lambda *given, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool(run, tmp_path / "pool", *words)
    monkeypatch.setattr(pools, "finish_pool", finish)
    assert pool(run, tmp_path / "pool", *words) == 0
    assert content(tmp_path / "pool") == content(tmp_path / "whole")


def test_other_filters_for_the_same_pool_are_refused(run, tmp_path, capsys):
    pool(run, tmp_path / "pool", "count=10", "keep_score=0.5", FEW)
    before = content(tmp_path / "pool")
    for words in (["keep_score=0.6", FEW], [], ["keep_score=0.5", FEW, agree(run)]):
        assert pool(run, tmp_path / "pool", "count=10", *words) == 2
        assert "another configuration (filter" in capsys.readouterr().err
    assert content(tmp_path / "pool") == before


def constant_classifier(path: Path, channels: int = 1, names=NAMES) -> Path:
    """Sees the last class in every image."""
    classifier = Classifier(build_encoder("resnet8", channels, 4), len(names))
    torch.nn.init.zeros_(classifier.head.weight)
    classifier.head.bias.data = torch.arange(float(len(names)))
    classifier.facts = {"class_names": list(names)}
    save_classifier(path, classifier)
    return path


def test_classes_of_which_next_to_nothing_is_kept_are_one_line_before_anything_is_written(run, tmp_path, capsys):
    never = constant_classifier(tmp_path / "never.safetensors")
    assert pool(run, tmp_path / "pool", "count=10", f"agree={never}", FEW) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "keep too little of 2 class(es): 'cat' 0.0%, 'dog' 0.0%, of 40 images each" in error
    assert "tries=20 expects at least 5.0%" in error
    assert not (tmp_path / "pool").exists()


def test_a_class_that_the_pool_does_not_want_may_be_rejected_altogether(run, tmp_path):
    never = constant_classifier(tmp_path / "never.safetensors")
    (tmp_path / "counts.csv").write_text("éléphant blanc,7\n")
    assert pool(run, tmp_path / "pool", f"counts={tmp_path}/counts.csv", f"agree={never}", FEW) == 0
    made = read_json(tmp_path / "pool" / "pool.json")
    assert made["kept_rate"] == {"éléphant blanc": 1.0} and made["drawn"]["cat"] == 0
    assert list(made["calibrated"]["kept_rate"]) == ["éléphant blanc"]


def test_a_sample_whose_attempts_run_out_is_one_line_that_names_its_class(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(filters, "PATIENCE", 0)  # the first attempt is the last
    assert pool(run, tmp_path / "pool", "count=60", "keep_score=0.1", FEW) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "of class '" in error and "all 1 attempts were rejected" in error
    assert not (tmp_path / "pool" / "index.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["keep_score=0"], "keep_score=0.0: expected a share above 0"),
        (["keep_score=1.5"], "keep_score=1.5: expected a share above 0"),
        (["agree_min=0.5"], "agree_min=0.5: needs agree="),
        (["agree=nowhere.parquet", "agree_min=2"], "agree_min=2.0: expected a probability"),
        (["agree=nowhere.parquet"], "a classifier in 'nowhere.classifier.safetensors', which does not exist"),
        (["agree=nowhere"], "a classifier in 'nowhere', which does not exist"),
        (["tries=0"], "tries=0: expected"),
        (["calibration=3"], "calibration=3: expected at least 20"),
    ],
)
def test_a_wrong_filter_is_one_line_that_names_it(run, tmp_path, capsys, words, message):
    assert pool(run, tmp_path / "pool", "count=5", *words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "pool").exists()


def test_a_classifier_that_does_not_fit_the_run_is_refused(run, tmp_path, capsys):
    other = constant_classifier(tmp_path / "other.safetensors", names=["cat", "cow", "éléphant blanc"])
    colour = constant_classifier(tmp_path / "colour.safetensors", channels=3)
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(encoder, build_encoder("resnet8", 1, 4))
    for path, message in (
        (other, "a classifier of the classes cat, cow, éléphant blanc; the run's are cat, dog, éléphant blanc"),
        (colour, "images with 3 channels, the run's images have 1"),
        (encoder, "expected a classifier, this is only an encoder"),
    ):
        assert pool(run, tmp_path / "pool", "count=5", f"agree={path}") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "pool").exists()


@pytest.mark.cluster
def test_the_filtered_pool_of_two_processes_is_byte_equal_to_the_pool_of_one(run, tmp_path):
    words = ["count=2150", "keep_score=0.5", agree(run), "tries=60"]
    assert pool(run, tmp_path / "one", *words) == 0
    _, errors = (process := start(LAUNCH, run, tmp_path / "two", *words)).communicate(timeout=300)
    assert process.returncode == 0, errors
    assert content(tmp_path / "two") == content(tmp_path / "one")
