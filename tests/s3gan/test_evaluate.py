import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.data.label_table import LabelTable, write_table
from s3gan import evaluate, generate
from s3gan.evaluation import evaluated_images, tasks
from s3gan.inference.loading import load_generator
from s3gan.metrics import pretrained, trained
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.given import reveal
from tests.s3gan.metrics.test_pretrained import InceptionStandIn, sha256
from tests.s3gan.test_generate import LAUNCH
from tests.s3gan.toy_run import make_run, train_further
from tests.selfsup.toy_shards import make_shards
from tests.servers import files, serving

NAMES = ["cat", "dog", "éléphant blanc"]
RECIPE = ["classifier.width=4", "classifier.steps=3", "classifier.batch=8", "threads=1"]


def pictures(labels, seed, channels=1):
    noise = np.random.RandomState(seed).randint(0, 60, (len(labels), channels, 32, 32))
    return (noise + 60 * np.array([label or 0 for label in labels])[:, None, None, None]).astype(np.uint8)


def real(directory, train, test):
    """Real images: train and test with these labels."""
    for seed, (split, labels) in enumerate((("train", train), ("test", test))):
        make_shards(directory / split, [len(labels)], labels, NAMES, images=pictures(labels, seed))
    return directory


def run_with(template, directory, table):
    """The template's run as if it had been trained with another label table."""
    shutil.copytree(template, directory)
    network = read_json(directory / "network.json")
    write_json(directory / "network.json", network | {"label_table": table})
    return directory


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("template"), NAMES, counts=[1, 1, 2], table={"method": "reveal"})
    load_generator(run)
    return run


@pytest.fixture
def run(tmp_path, template):
    return Path(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture
def data(tmp_path):
    return real(tmp_path / "data", [0, 1, 2] * 12 + [0] * 8, [0, 1, 0, 1, 1, 0])  # no elephant to test on


@pytest.fixture
def budget(tmp_path, data):
    table = reveal(evaluate.Shards(data / "train"), 0.5, seed=0)
    table.metadata |= {"method": "reveal", "fingerprint": evaluate.Shards(data / "train").fingerprint}
    write_table(tmp_path / "budget.parquet", table)
    return tmp_path / "budget.parquet"


def scores(what, data, *words):
    """Evaluates and returns the results by task."""
    assert evaluate.main([what, f"data={data}", *RECIPE, *words]) == 0
    out = next((Path(word.partition("=")[2]) for word in words if word.startswith("out=")), None)
    stored = read_json((out or Path(what.partition("=")[2]) / "evaluation") / "scores.json")
    return {name: task["results"] for name, task in stored.items()}


def test_a_run_is_scored_with_its_protocol_and_the_floor(run, data, budget):
    found = scores(f"run={run}", data, "count=30", f"budget={budget}")
    assert list(found["distances"]) == [
        "fd_classifier6",
        "kd_classifier6",
        "floor_fd_classifier6",
        "floor_kd_classifier6",
    ]
    detectors = {score["detector"] for score in found["distances"].values()}
    assert len(detectors) == 1 and len(detectors.pop()) == 12
    distance = found["distances"]["fd_classifier6"]
    assert (distance["samples"], distance["reference"], distance["split"], distance["seed"]) == (30, 6, "test", 0)
    floor = found["distances"]["floor_fd_classifier6"]
    assert (floor["samples"], floor["reference"]) == (30, 6)
    assert 0 <= floor["value"] < distance["value"]
    counts = {name: result["train_count"] for name, result in found["cas"].items()}
    assert counts == {"pool": 30, "budget": 22, "budget_and_pool": 52, "all": 44}
    for result in found["cas"].values():
        confusion = np.array(result["confusion"])
        assert confusion.sum(1).tolist() == [3, 3, 0]
        assert result["accuracy"] == pytest.approx(np.trace(confusion) / 6)
        assert result["per_class"] == [confusion[0, 0] / 3, confusion[1, 1] / 3, None]
    section = read_json(run / "evaluation" / "report" / "accuracy.json")
    assert section["table"]["columns"][3:] == NAMES
    assert all(row[-1] == "n/a" for row in section["table"]["rows"])
    for picture in ("classes.png", "accuracy.png"):
        assert (run / "evaluation" / "report" / picture).is_file()


def test_finished_parts_are_not_computed_again_unless_their_inputs_change(run, data, budget, monkeypatch):
    off = ["cas=false", "prdc=false", "intra=false", "memorisation=0"]
    first = scores(f"run={run}", data, "count=30", *off)
    assert list(first) == ["distances"]
    calls = count_calls(monkeypatch)
    assert scores(f"run={run}", data, "count=30")["distances"] == first["distances"]
    assert calls == ["draw", "overlap", "within_classes", "memorisation", "accuracies"]
    calls.clear()
    scores(f"run={run}", data, "count=30")
    assert calls == []  # nothing is drawn either
    scores(f"run={run}", data, "count=30", f"budget={budget}")
    assert calls == ["draw", "within_classes", "accuracies"]
    calls.clear()
    scores(f"run={run}", data, "count=29", f"budget={budget}", "reference=train")
    assert calls == ["draw", "distances", "overlap", "within_classes", "memorisation", "accuracies"]


def count_calls(monkeypatch):
    """Names of the tasks that are computed and, as `draw`, of samples that are drawn, in their order."""
    calls = []
    for module, name in [(tasks, name) for name in TASKS] + [(evaluated_images, "draw_samples")]:
        original, called = getattr(module, name), "draw" if name == "draw_samples" else name
        monkeypatch.setattr(
            module, name, lambda *a, called=called, original=original: (calls.append(called), original(*a))[1]
        )
    return calls


TASKS = ("distances", "overlap", "within_classes", "memorisation", "accuracies")


def test_evaluations_that_share_a_cache_train_what_they_share_once(run, data, budget, tmp_path, monkeypatch):
    trainings = []
    fit = trained.fit
    monkeypatch.setattr(trained, "fit", lambda *a, **k: (trainings.append(k["what"]), fit(*a, **k))[1])
    words = ["count=30", f"budget={budget}", f"cache={tmp_path / 'cache'}"]
    first = scores(f"run={run}", data, *words)
    assert trainings == ["detector", "classifier of pool", "classifier of budget", "classifier of budget and pool"]
    second = scores(f"run={run}", data, *words, "truncation=0.5")
    assert trainings[4:] == ["classifier of pool", "classifier of budget and pool"]
    assert second["cas"]["all"] == first["cas"]["all"] and second["cas"]["budget"] == first["cas"]["budget"]
    assert second["distances"]["floor_fd_classifier6"] == first["distances"]["floor_fd_classifier6"]
    assert second["distances"]["fd_classifier6"]["value"] != first["distances"]["fd_classifier6"]["value"]


def test_a_pool_scores_like_the_samples_it_holds(run, data, tmp_path):
    assert generate.main([f"run={run}", f"out={tmp_path / 'pool'}", "count=30", "balance=table", "threads=1"]) == 0
    of_run = scores(f"run={run}", data, "count=30", f"cache={tmp_path / 'cache'}")
    of_pool = scores(f"pool={tmp_path / 'pool'}", data, "count=30", f"cache={tmp_path / 'cache'}")
    assert of_pool["distances"] == of_run["distances"]
    assert of_pool["cas"]["pool"] == of_run["cas"]["pool"]


def test_the_parts_on_features_tell_how_images_overlap_lie_within_classes_and_repeat(run, data):
    found = scores(f"run={run}", data, "count=30", "cas=false", "reference=train", "intra_count=2")
    names = [name for name in found["prdc"] if not name.startswith("floor_")]
    assert names == [f"{kind}_classifier30_train" for kind in ("precision", "recall", "density", "coverage")]
    assert [name for name in found["prdc"] if name.startswith("floor_")][0] == "floor_precision_classifier6_train"
    assert all(score["value"] >= 0 and score["samples"] == score["reference"] for score in found["prdc"].values())
    intra = found["intra"]["intra_fd_classifier2x2_train"]  # the test split has no elephant for the floor
    assert None not in intra["per_class"][:2] and intra["per_class"][2] is None
    assert intra["left_out"] == {NAMES[2]: "15 generated, 12 real train, 0 real test"}
    ratio = found["memorisation"]["nn_ratio_classifier30"]
    assert (ratio["reference"], ratio["test"], ratio["split"]) == (44, 6, "train") and ratio["value"] > 0
    report = run / "evaluation" / "report"
    for picture in ("intra.png", "memorisation.png"):
        assert (report / picture).is_file()
    assert read_json(report / "intra.json")["table"]["rows"][2][1:3] == ["n/a", "n/a"]
    assert "among 44 training images" in read_json(report / "memorisation.json")["text"]


def test_another_detector_stands_beside_the_first_under_its_own_name(run, data, tmp_path, capsys):
    few = ["count=30", "cas=false", "prdc=false", "memorisation=0", "intra_count=2"]
    first = scores(f"run={run}", data, *few)
    save_encoder(tmp_path / "mine.safetensors", build_encoder("resnet8", 1, 4))
    other = [*few, "detector=encoder", f"detector_weights={tmp_path / 'mine.safetensors'}"]
    found = scores(f"run={run}", data, *other)
    assert found["distances"] == first["distances"]
    assert list(found["distances_encoder"])[:2] == ["fd_encoder6", "kd_encoder6"]
    assert "intra_fd_encoder2x2" in found["intra_encoder"]
    report = run / "evaluation" / "report"
    assert {"scores.json", "scores_encoder.json", "intra.png", "intra_encoder.png"} <= {
        p.name for p in report.iterdir()
    }
    assert "fd_encoder6: " in capsys.readouterr().out


def test_the_network_of_fid_gives_fid_kid_and_the_inception_score(run, data, tmp_path, capsys, monkeypatch):
    torch.jit.script(InceptionStandIn()).save(tmp_path / "inception.pt")
    words = ["count=30", "cas=false", "detector=inception", f"detector_weights={tmp_path / 'inception.pt'}"]
    assert evaluate.main([f"run={run}", f"data={data}", *RECIPE, *words]) == 2  # the file is no such thing
    assert "expected f58cb9b6" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (run / "evaluation" / "scores.json").exists()
    monkeypatch.setattr(pretrained, "FID_SHA256", sha256(tmp_path / "inception.pt"))
    found = scores(f"run={run}", data, *words)
    assert list(found["distances_inception"]) == ["fid6", "kid6", "is30", "floor_fid6", "floor_kid6"]
    assert "precision_inception6" in found["prdc_inception"]


def test_sample_seeds_and_checkpoints_are_scored_one_by_one_and_shown_as_their_mean(run, data, capsys, monkeypatch):
    train_further(run, 1, 3, nimg=200)
    few = ["count=30", "cas=false", "prdc=false", "intra=false", "memorisation=0"]
    single = scores(f"run={run}", data, *few)["distances"]["fd_classifier6"]
    calls = count_calls(monkeypatch)
    found = scores(f"run={run}", data, *few, "sample_seeds=2", "checkpoints=2")["distances"]["fd_classifier6"]
    assert (calls.count("distances"), calls.count("draw")) == (3, 4)  # the first is known, but drawn for the report
    draws = read_json(run / "evaluation" / "scores.json")["distances"]["draws"]
    images = [draw["inputs"]["images"] for draw in draws]
    assert [(one["nimg"], one["seed"]) for one in images] == [(200, 0), (200, 1), (100, 0), (100, 1)]
    values = [draw["results"]["fd_classifier6"]["value"] for draw in draws]
    assert values[0] == single["value"] and len(set(values)) == 4
    assert (found["value"], found["draws"]) == (pytest.approx(np.mean(values)), 4)
    newest, older = np.var(values[:2], ddof=1), np.var(values[2:], ddof=1)
    assert found["sample_sd"] == pytest.approx(((newest + older) / 2) ** 0.5)
    printed = capsys.readouterr().out
    assert "(sample seeds) ± " in printed and "(mean of 4 draws" in printed
    assert "floor_fd_classifier6: 0.0" in printed and "images seen: 100, sample seed: 1, fd_classifier6: " in printed
    assert len(read_json(run / "evaluation" / "report" / "draws.json")["table"]["rows"]) == 4


def test_a_pool_of_unknown_origin_is_scored_by_its_class_names(data, tmp_path):
    labels = [0, 1, 2, 1] * 5
    make_shards(tmp_path / "pool", [20], labels, ["dog", "cat", "fish"], images=pictures(labels, 9))
    found = scores(f"pool={tmp_path / 'pool'}", data, "count=10")
    assert found["distances"]["fd_classifier6"]["samples"] == 10
    pool = found["cas"]["pool"]
    assert (pool["train_count"], pool["dropped_classes"], pool["dropped_images"]) == (15, 1, 5)
    assert "budget=TABLE" in found["cas"]["budget"]["n/a"] and "n/a" in found["cas"]["budget_and_pool"]
    assert "accuracy" in found["cas"]["all"]


def test_a_pool_and_images_on_a_web_server_score_like_local_ones(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARD_CACHE_DIR", str(tmp_path / "blocks"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    labels = [0, 1, 2, 1] * 5
    make_shards(tmp_path / "pool", [20], labels, ["dog", "cat", "fish"], images=pictures(labels, 9))
    write_json(tmp_path / "pool" / "pool.json", {"label_table": {"method": "reveal"}})
    local = scores(f"pool={tmp_path / 'pool'}", data, "count=10")
    with serving(files(tmp_path)) as server:
        remote = scores(f"pool={server.url}/pool", f"{server.url}/{data.name}", "count=10", f"out={tmp_path / 'out'}")
    assert remote == local and local["cas"]["pool"]["accuracy"] is not None


def test_labels_that_nobody_has_print_not_available_with_the_reason(run, tmp_path, capsys):
    data = real(tmp_path / "unlabelled", [None] * 9, [None] * 5)
    found = scores(f"run={run}", data, "count=10")
    assert "0 classes have images with labels" in found["distances"]["n/a"]
    assert {result["n/a"] for result in found["cas"].values()} >= {"no test image has a label"}
    assert "distances: n/a (detector: 0 classes" in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluation" / "report" / "classes.png").is_file()


def test_clusters_stand_for_the_budgets_majority_and_need_a_budget(template, data, budget, tmp_path):
    train = evaluate.Shards(data / "train")
    labels = np.array([1, 2, 2] * 12 + [1] * 8, np.int32)  # cats are cluster 1, dogs and elephants 2, nobody is 0
    metadata = {"classes": ["c0", "c1", "c2"], "fingerprint": train.fingerprint, "method": "kmeans"}
    rows = len(labels)
    table = LabelTable(train.keys(), labels, np.full(rows, "cluster"), np.ones(rows, np.float32), metadata=metadata)
    write_table(tmp_path / "clusters.parquet", table)
    described = {**metadata, "path": str(tmp_path / "clusters.parquet")}
    run = run_with(template, tmp_path / "clusters", described)
    found = scores(f"run={run}", data, "count=40")["cas"]
    assert "budget=TABLE" in found["pool"]["n/a"]
    found = scores(f"run={run}", data, "count=40", f"budget={budget}")["cas"]
    assert (found["pool"]["dropped_classes"], found["pool"]["dropped_images"]) == (1, 10)
    assert (found["pool"]["train_count"], found["budget_and_pool"]["train_count"]) == (30, 52)


@pytest.mark.parametrize("table", [{}, {"method": "single"}, {"method": "random"}])
def test_uninformed_methods_have_distances_but_no_accuracy(template, data, budget, tmp_path, table):
    run = run_with(template, tmp_path / "uninformed", table)
    found = scores(f"run={run}", data, "count=10", f"budget={budget}")
    assert "fd_classifier6" in found["distances"]
    assert "stand for nothing" in found["cas"]["pool"]["n/a"]
    assert "stand for nothing" in found["cas"]["budget_and_pool"]["n/a"]
    assert "accuracy" in found["cas"]["budget"] and "accuracy" in found["cas"]["all"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one of the two"),
        (["run=RUN", "pool=POOL"], "expected one of the two"),
        (["run=RUN", "count=1"], "count=1: expected at least 2 images"),
        (["run=RUN", "reference=both"], "expected one of train, test"),
        (["run=RUN", "classifier.stesp=3"], "did you mean 'classifier.steps'?"),
        (["run=RUN", "classifier.steps=0"], "steps=0: expected a positive integer"),
        (["pool=nowhere"], "'nowhere' does not exist"),
        (["pool=http://host/pool"], "scores are written to this machine, give out=DIRECTORY"),
        (["run=RUN", "data=nowhere"], "nowhere/train' does not exist"),
        (["run=RUN", "budget=nowhere.parquet"], "'nowhere.parquet': no such file"),
        (["run=RUN", "checkpoints=3"], "holds 1 up to 100 images (keep_last of s3gan.train"),
        (["run=RUN", "sample_seeds=0"], "sample_seeds=0: expected 1 or more"),
        (["pool=POOL", "sample_seeds=2"], "are of a run"),
        (["run=RUN", "detector=dinov2"], "expected weights with any detector but classifier"),
        (["run=RUN", "detector_weights=file.pt"], "detector=classifier detector_weights='file.pt': expected weights"),
        (["run=RUN", "detector=encoder", "detector_weights=nowhere"], "'nowhere': no such run directory or file"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(run, data, capsys, words, message):
    words = [word.replace("RUN", str(run)) for word in words]
    given = [] if any(word.startswith("data=") for word in words) else [f"data={data}"]
    assert evaluate.main([*given, *RECIPE[:1], "threads=1", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("s3gan.evaluate: error: ")


def test_a_budget_of_other_data_is_refused_before_anything_is_computed(run, budget, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tasks, "distances", None)
    other = real(tmp_path / "other", [0, 1], [0, 1])
    assert evaluate.main([f"run={run}", f"data={other}", f"budget={budget}", "threads=1"]) == 2
    assert "made for other data" in capsys.readouterr().err


def test_images_of_another_size_or_colour_are_refused(data, tmp_path, capsys):
    run = make_run(tmp_path / "colour", NAMES, channels=3)
    assert evaluate.main([f"run={run}", f"data={data}", "threads=1"]) == 2
    assert "makes images of 32 px with 3 channels" in capsys.readouterr().err


@pytest.mark.cluster
def test_scores_do_not_depend_on_the_number_of_processes(run, data, budget, tmp_path):
    sizes = ["count=130", "intra_count=2", "reference=train", f"budget={budget}"]
    words = [f"data={data}", *sizes, *RECIPE]
    one = scores(f"run={run}", data, *sizes)
    assert len(one) == 5 and all("n/a" not in task for task in one.values())
    module = [*LAUNCH[:-1], "s3gan.evaluate"]
    command = [sys.executable, "-m", *module, f"run={run}", f"out={tmp_path / 'two'}", *words]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    stored = read_json(tmp_path / "two" / "scores.json")
    assert {name: task["results"] for name, task in stored.items()} == one
