import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.data import pool as data_pool
from cluster_jobs.data.shards import Shards
from s3gan import generate
from s3gan.inference.loading import load_generator
from s3gan.inference.sampling import Balance, class_weights, draw_noise, make_images, plan_labels
from s3gan.pools import directory as pools
from tests.processes import fork
from tests.s3gan.toy_run import make_run, train_further

LAUNCH = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--main_process_port", "0"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "s3gan.generate"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run whose standing statistics are computed already."""
    run = make_run(tmp_path_factory.mktemp("template"), counts=[1, 5, 2])
    load_generator(run)
    return run


@pytest.fixture
def run(tmp_path, template):
    return Path(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(data_pool, "SHARD_SAMPLES", 20)


def pool(run, out, *words):
    return generate.main([f"run={run}", f"out={out}", "threads=1", *words])


def content(out):
    """Every file of a pool but its picture, as bytes."""
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def test_labels_have_exact_shares_in_an_order_that_the_seed_decides():
    labels = plan_labels(10, np.array([0.55, 0.25, 0.2]), seed=0)
    assert np.bincount(labels).tolist() == [6, 2, 2]  # 5.5, 2.5, 2: the first of the largest remainders
    assert labels.tolist() == plan_labels(10, np.array([0.55, 0.25, 0.2]), seed=0).tolist()
    assert labels.tolist() != plan_labels(10, np.array([0.55, 0.25, 0.2]), seed=1).tolist() != sorted(labels)
    for count in (1, 7, 1000):
        assert len(plan_labels(count, np.full(3, 1 / 3), seed=0)) == count


def test_classes_are_balanced_evenly_or_like_the_label_table():
    network = {"classes": 3, "class_counts": [1, 5, 2]}
    assert class_weights(network, Balance.uniform).tolist() == pytest.approx([1 / 3] * 3)
    assert class_weights(network, Balance.table).tolist() == [0.125, 0.625, 0.25]
    empty = {"classes": 3, "class_counts": [4, 0, 2]}  # no training had fakes of a class without a real image
    assert class_weights(empty, Balance.uniform).tolist() == [0.5, 0, 0.5]
    with pytest.raises(UserError, match="expected some above 0"):
        class_weights({"classes": 2, "class_counts": [0, 0]}, Balance.table)


def test_noise_is_normal_and_belongs_to_its_index():
    noise = draw_noise(0, range(500), 40)
    assert torch.equal(draw_noise(0, [17, 3], 40), noise[[17, 3]])
    assert not torch.equal(draw_noise(1, [17], 40), noise[[17]])
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03 and noise.dtype == torch.float32


def test_truncated_noise_follows_the_normal_distribution_cut_off_at_the_threshold():
    found = draw_noise(0, range(500), 40, truncation=0.7).flatten().double()
    reference = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = reference[reference.abs() <= 0.7]
    assert found.abs().max() <= 0.7
    shares = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    torch.testing.assert_close(found.quantile(shares), reference[:200_000].quantile(shares), atol=0.02, rtol=0)


def test_a_pool_says_which_run_its_generator_began_from(run, tmp_path, small_shards):
    assert pool(run, tmp_path / "plain", "count=3") == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"init_from": "runs/older"}))
    assert pool(run, tmp_path / "pool", "count=3") == 0
    made = [read_json(tmp_path / name / "pool.json")["init_from"] for name in ("plain", "pool")]
    assert made == [None, "runs/older"]


def test_an_image_does_not_depend_on_what_else_is_in_its_block(run):
    generator, _ = load_generator(run)
    noise, labels = draw_noise(0, range(7), generator.z_dim), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    full = make_images(generator, noise, labels, 7, torch.device("cpu"))
    alone = make_images(generator, noise[3:4], labels[3:4], 7, torch.device("cpu"))
    assert full.dtype == np.uint8 and full.shape == (7, 1, 32, 32)
    assert full.std() > 0
    reordered = make_images(generator, noise[[3, 0]], labels[[3, 0]], 7, torch.device("cpu"))
    np.testing.assert_array_equal(reordered[:1], alone)


def test_a_pool_is_labelled_shards_with_what_made_them(run, tmp_path, small_shards):
    assert pool(run, tmp_path / "pool", "count=50", "balance=table", "truncation=0.8", "seed=4") == 0
    shards = Shards(tmp_path / "pool")
    assert (len(shards), shards.size, shards.channels) == (50, 32, 1)
    assert shards.shard_counts.tolist() == [20, 20, 10]
    assert shards.classes == ["cat", "dog", "éléphant blanc"]
    assert np.bincount(shards.hidden_labels()).tolist() == [6, 31, 13]  # of 6.25, 31.25, 12.5
    made = read_json(tmp_path / "pool" / "pool.json")
    assert made["counts"] == {"cat": 6, "dog": 31, "éléphant blanc": 13}
    assert (made["truncation"], made["seed"], made["balance"], made["count"]) == (0.8, 4, "table", 50)
    assert made["checkpoint"]["file"] == "000000000100.safetensors" and made["checkpoint"]["nimg"] == 100
    generator, _ = load_generator(run)
    noise = draw_noise(4, [41], generator.z_dim, 0.8)
    label = torch.from_numpy(shards.hidden_labels()[[41]].astype(np.int64))
    expected = make_images(generator, noise, label, 100, torch.device("cpu"))[0]
    np.testing.assert_array_equal(shards.image(41), expected)
    assert (tmp_path / "pool" / "report" / "pool.png").is_file()


def test_per_class_asks_for_the_same_number_of_every_class_that_was_trained_in_colour_too(tmp_path, small_shards):
    run = make_run(tmp_path / "run", channels=3, counts=[1, 100, 0])
    assert pool(run, tmp_path / "pool", "per_class=7", "balance=table") == 0
    shards = Shards(tmp_path / "pool")
    counts = np.bincount(shards.hidden_labels(), minlength=3)
    assert counts.tolist() == [7, 7, 0]  # no training had a fake of the last
    assert shards.image(0).shape == (3, 32, 32)


def test_counts_come_from_a_csv_of_class_names_or_numbers(run, tmp_path, small_shards):
    table = tmp_path / "counts, mine = 'x'.csv"
    table.write_text("class,images\ne\u0301le\u0301phant blanc , 12\n\n0,30\n", encoding="utf-8-sig")
    assert pool(run, tmp_path / "pool", f"counts={table}") == 0
    labels = Shards(tmp_path / "pool").hidden_labels()
    assert np.bincount(labels).tolist() == [30, 0, 12] and len(set(labels[:20].tolist())) == 2
    made = read_json(tmp_path / "pool" / "pool.json")
    assert (made["count"], made["balance"]) == (42, "counts")
    assert made["counts"] == {"cat": 30, "dog": 0, "éléphant blanc": 12}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cat,5", "dgo,3"], "line 2: unknown class 'dgo'; did you mean 'dog'?"),
        (["class,count", "cat,5", "cat,6"], "line 3: 'cat' is there twice"),
        (["cat,5", "0,6"], "line 2: '0' is there twice"),
        (["cat,-5"], "line 1: '-5' images of 'cat', expected a number of at least 0"),
        (["cat,1.5"], "line 1: '1.5' images of 'cat', expected a number"),
        (["cat,0"], "asks for no image"),
        (["class,count"], "asks for no image"),
        (["cat,5,6"], "line 1: 3 columns, expected class,count"),
    ],
)
def test_a_csv_of_counts_that_does_not_fit_is_one_line_with_its_number(run, tmp_path, capsys, lines, message):
    (tmp_path / "counts.csv").write_text("".join(f"{line}\n" for line in lines))
    assert pool(run, tmp_path / "pool", f"counts={tmp_path}/counts.csv") == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "pool").exists()


def test_plain_webdataset_reads_a_pool(run, tmp_path, small_shards):
    webdataset = pytest.importorskip("webdataset")
    pool(run, tmp_path / "pool", "count=45")
    shards = Shards(tmp_path / "pool")
    urls = [str(path) for path in sorted((tmp_path / "pool").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("l8").to_tuple("__key__", "png", "cls"))
    assert [f"{number // 20:06d}/{sample[0]}" for number, sample in enumerate(samples)] == shards.keys()
    assert [sample[2] for sample in samples] == shards.hidden_labels().tolist()
    np.testing.assert_array_equal(samples[33][1], shards.image(33)[0])


def test_an_unfinished_pool_goes_on_and_a_finished_one_stays_as_it_is(run, tmp_path, small_shards, monkeypatch):
    pool(run, tmp_path / "whole", "count=70")
    write = pools.write_shard

    def failing(directory, number, samples):
        if number == 2:
            raise KeyboardInterrupt
        write(directory, number, samples)

    monkeypatch.setattr(pools, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        pool(run, tmp_path / "pool", "count=70")
    with pytest.raises(UserError, match="no finished shard directory"):
        Shards(tmp_path / "pool")
    written = []
    monkeypatch.setattr(pools, "write_shard", lambda *arguments: (written.append(arguments[1]), write(*arguments)))
    assert pool(run, tmp_path / "pool", "count=70") == 0
    assert written == [2, 3]
    assert content(tmp_path / "pool") == content(tmp_path / "whole")
    assert pool(run, tmp_path / "pool", "count=70") == 0
    assert written == [2, 3]


@pytest.mark.parametrize(
    ("word", "difference"),
    [("seed=1", "seed: 0 -> 1"), ("truncation=0.5", "truncation: 0.0 -> 0.5"), ("count=31", "count: 30 -> 31")],
)
def test_another_configuration_for_the_same_pool_is_refused(run, tmp_path, small_shards, capsys, word, difference):
    pool(run, tmp_path / "pool", "count=30")
    before = content(tmp_path / "pool")
    assert pool(run, tmp_path / "pool", "count=30", word) == 2
    assert difference in capsys.readouterr().err
    assert content(tmp_path / "pool") == before


def test_a_pool_of_an_earlier_checkpoint_is_refused_unless_that_one_is_named(run, tmp_path, small_shards, capsys):
    pool(run, tmp_path / "pool", "count=30")
    before = content(tmp_path / "pool")
    train_further(run, 1, 3, 200)
    assert pool(run, tmp_path / "pool", "count=30") == 2
    assert "checkpoint" in capsys.readouterr().err
    named = f"checkpoint={run}/checkpoints/000000000100.safetensors"
    assert pool(run, tmp_path / "pool", "count=30", named) == 0
    assert content(tmp_path / "pool") == before
    assert pool(run, tmp_path / "newer", "count=30") == 0
    assert content(tmp_path / "newer")["000000.tar"] != before["000000.tar"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["count=0"], "expected a positive number of images"),
        (["truncation=-1"], "truncation=-1.0: expected"),
        (["balance=even"], "expected one of uniform, table"),
        (["checkpoint=best"], "no checkpoint"),
        (["checkpoint=nowhere.safetensors"], "nowhere.json"),
        (["counts=nowhere.csv"], "counts='nowhere.csv': cannot read it"),
        (["counts=nowhere.csv", "per_class=3"], "counts='nowhere.csv' per_class=3: expected one of the two"),
        (["part=2", "parts=2"], "part=2 parts=2: expected 0 <= part < parts"),
        (["cuont=5"], "did you mean 'count'?"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(run, tmp_path, capsys, words, message):
    assert pool(run, tmp_path / "pool", *words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "pool").exists()


def test_no_run_or_a_directory_of_other_shards_is_refused(run, tmp_path, capsys):
    assert pool(tmp_path / "nowhere", tmp_path / "pool") == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.tar").write_bytes(b"precious")
    assert pool(run, tmp_path / "mine") == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine" / "000000.tar").read_bytes() == b"precious"


def start(module, run, out, *words):
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *module, f"run={run}", f"out={out}", "threads=1", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_commands_that_share_out_a_pool_make_the_pool_of_one(run, tmp_path, small_shards, capsys):
    assert pool(run, tmp_path / "one", "count=90") == 0
    for part in (2, 0, 1):
        assert not (tmp_path / "shared" / "index.json").exists()
        capsys.readouterr()
        assert pool(run, tmp_path / "shared", "count=90", f"part={part}", "parts=3") == 0
        assert ("the others are still at work" in capsys.readouterr().out) == (part != 1)
    assert content(tmp_path / "shared") == content(tmp_path / "one")


@pytest.mark.slow
def test_the_pool_of_two_processes_is_byte_equal_to_the_pool_of_one(run, tmp_path):
    assert pool(run, tmp_path / "one", "count=2150") == 0
    process = start(LAUNCH, run, tmp_path / "two words", "count=2150")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(content(tmp_path / "one")) == 8
    assert content(tmp_path / "two words") == content(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["keep_score=0.5"]], ids=["plain", "filtered"])
def test_a_pool_survives_a_kill(run, tmp_path, words):
    assert pool(run, tmp_path / "whole", "count=2150", *words) == 0
    call = ("s3gan.generate", f"run={run}", f"out={tmp_path / 'pool'}", "threads=1", "count=2150", *words)
    killed = fork(tmp_path / "log", "tests.killed", *call, env={"KILL_AT": "*/pool/000001.tar"})
    assert killed.code == -signal.SIGKILL, killed.output
    assert [path.name for path in (tmp_path / "pool").glob("*.tar")] == ["000000.tar"]
    assert pool(run, tmp_path / "pool", "count=2150", *words) == 0
    assert content(tmp_path / "pool") == content(tmp_path / "whole")
