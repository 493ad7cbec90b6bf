"""Scores during training, against a plain computation of the same distances from the saved weights."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from cluster_jobs.core.seeds import derive_seed, is_validation
from cluster_jobs.data.images import encode_png, to_float
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.checkpoint import CheckpointStore
from cluster_jobs.training.run import load_run
from s3gan import train
from s3gan.inference.loading import load_generator
from s3gan.inference.sampling import draw_noise, plan_labels
from s3gan.metrics.kernel import kernel_distance
from selfsup.encoders.loading import load_encoder, save_encoder
from selfsup.encoders.resnet import build_encoder
from tests.processes import fork, fork_ranks
from tests.s3gan.toy_data import CLASSES, make_table

KEYS = [
    *("network=biggan_light", "method=supervised", "width=2", "batch=16", "threads=1", "total_nimg=96"),
    *("log_nimg=32", "checkpoint_nimg=48", "sample_nimg=1000", "eval_nimg=32", "eval_count=230"),
]
FD, KD = "fd_encoder230_val", "kd_encoder230_val"


def make_data(directory: Path, hidden: bool = True) -> Shards:
    """300 images of 32 px in three classes of different brightness."""
    random = np.random.RandomState(0)
    images = random.randint(0, 80, (300, 1, 32, 32)) + 80 * (np.arange(300) % 3)[:, None, None, None]
    samples = [
        Sample(f"{number:08d}", encode_png(image.astype(np.uint8)), label=number % 3 if hidden else None)
        for number, image in enumerate(images)
    ]
    write_shard(directory, 0, samples)
    finish_index(directory, 1, classes=CLASSES, size=32, mode="L")
    return Shards(directory)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a label table and an encoder; to be read only."""
    directory = tmp_path_factory.mktemp("data")
    make_table(directory / "table.parquet", make_data(directory / "train"))
    save_encoder(directory / "encoder.safetensors", build_encoder("resnet8", 1, 4, seed=1).eval())
    return directory


def words(data: Path, run: Path, *more: str) -> list[str]:
    """Later words win."""
    given = [f"data={data / 'train'}", f"labels={data / 'table.parquet'}", f"run.dir={run}", *KEYS, *more]
    return list({word.partition("=")[0]: word for word in given}.values())


def scored(data: Path, run: Path, *more: str) -> list[str]:
    return words(data, run, f"eval_encoder={data / 'encoder.safetensors'}", *more)


@pytest.fixture(scope="module")
def evaluated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was scored with two sample seeds, nobody disturbing it, and what it printed."""
    directory = tmp_path_factory.mktemp("evaluated")
    run = directory / "run"
    ended = fork(directory / "log", "s3gan.train", *scored(data, run, "eval_seeds=2", "keep_last=9"))
    assert ended.code == 0, ended.output
    return run, ended.output


def records(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl that hold scores."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if FD in line]


def weights(run: Path, nimg: int) -> bytes:
    return (run / f"checkpoints/{nimg:012d}.safetensors").read_bytes()


def test_scores_are_those_of_the_saved_weights_computed_plainly(data: Path, evaluated: tuple[Path, str]) -> None:
    run, _ = evaluated
    shards = Shards(data / "train")
    encoder, _ = load_encoder(data / "encoder.safetensors", 1, "cpu")
    held = [index for index, name in enumerate(shards.keys(0)) if is_validation(name)]
    real = encoder(to_float(torch.from_numpy(np.stack([shards.image(index) for index in held])), "cpu"))
    for line in records(run)[1:]:
        generator, _ = load_generator(run, str(run / f"checkpoints/{line['nimg']:012d}.safetensors"))
        found = []
        for number in range(2):
            seed = derive_seed(0, "validation", number)
            labels = torch.from_numpy(plan_labels(230, np.ones(3) / 3, seed)).long()
            with torch.no_grad():
                images = generator(draw_noise(seed, range(230), generator.z_dim), labels)
                fake = encoder(images.mul(127.5).add(127.5).round() / 127.5 - 1)
            found.append((plain_frechet(fake, real), kernel_distance(fake, real)[0]))
        for column, name in enumerate((FD, KD)):
            values = [score[column] for score in found]
            assert line[name] == pytest.approx(np.mean(values), rel=1e-3)
            assert line[f"{name}_sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5, rel=2e-2)


def plain_frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Heusel et al. 2017, eq. 6, by scipy's matrix root."""
    (m1, c1), (m2, c2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (a.double().numpy(), b.double().numpy()))
    root = scipy.linalg.sqrtm(c1 @ c2)
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real))


def test_scores_are_printed_recorded_and_carried_by_checkpoints(evaluated: tuple[Path, str]) -> None:
    run, output = evaluated
    assert [line["nimg"] for line in records(run)] == [32, 64, 96]
    store = CheckpointStore(run / "checkpoints")
    scores = {int(path.stem): store.facts(int(path.stem))["score"] for path in store.paths()}
    found = {line["nimg"]: line[FD] for line in records(run)}
    assert scores == {0: None, 48: None, **found}  # every score is saved at once
    assert load_run(run, "best")[2] == min(found, key=lambda nimg: found[nimg])
    told = [line for line in output.splitlines() if "± " in line]
    assert [line.partition(" images")[0] for line in told] == ["32", "64", "96"]
    line = records(run)[-1]
    assert f"{FD} {line[FD]:.4f} ± {line[f'{FD}_sd']:.4f}, {KD} {line[KD]:.4f}" in told[-1]
    protocol = json.loads((run / "validation" / "protocol.json").read_text())
    assert (protocol["samples"], protocol["sample_seeds"], protocol["encoder"][:7]) == (230, 2, "resnet8")


def test_best_goes_by_the_chosen_score_and_outlives_newer_checkpoints(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(scored(data, run, "best_by=kd", "eval_nimg=16", "keep_last=1")) == 0
    found = {line["nimg"]: line[KD] for line in records(run)}
    assert len(found) == 6
    best = min(found, key=lambda nimg: found[nimg])
    assert load_run(run, "best")[2] == best and (run / f"checkpoints/{best:012d}.safetensors").is_file()


def test_neither_scores_nor_watching_disturb_training(
    data: Path, evaluated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(words(data, run, "rollback=0", "keep_last=9")) == 0
    assert "no scores during training: eval_encoder= names no encoder" in capsys.readouterr().out
    assert not records(run)
    for nimg in (48, 96):
        assert weights(run, nimg) == weights(evaluated[0], nimg)


def test_no_hidden_label_has_a_part(data: Path, evaluated: tuple[Path, str], tmp_path: Path) -> None:
    make_data(tmp_path / "train", hidden=False)
    for name in ("table.parquet", "encoder.safetensors"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    run = tmp_path / "run"
    assert train.main(scored(tmp_path, run, "eval_seeds=2")) == 0
    assert records(run) == records(evaluated[0])


def test_without_hold_out_all_images_are_trained_on_and_with_it_none_of_the_validation_part(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(data / "train")
    held = {index for index, name in enumerate(shards.keys(0)) if is_validation(name)}
    assert 5 < len(held) < 30
    seen: dict[str, set[int]] = {}
    image = Shards.image

    def watched(self: Shards, index: int) -> np.ndarray:
        seen[word].add(index)
        return image(self, index)

    monkeypatch.setattr(Shards, "image", watched)
    for word in ("hold_out=false", "hold_out=true"):
        seen[word] = set()
        assert train.main(words(data, tmp_path / word, word, "total_nimg=320", "rollback=0")) == 0
    assert seen["hold_out=false"] == set(range(300)) and seen["hold_out=true"] == set(range(300)) - held


def test_an_encoder_that_changed_since_the_run_began_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, run = tmp_path / "mine.safetensors", tmp_path / "run"
    encoder.write_bytes((data / "encoder.safetensors").read_bytes())
    assert train.main(words(data, run, f"eval_encoder={encoder}")) == 0
    assert train.main(words(data, run, f"eval_encoder={encoder}")) == 0  # the same command again
    save_encoder(encoder, build_encoder("resnet8", 1, 4, seed=2).eval())
    assert train.main(words(data, run, f"eval_encoder={encoder}", "total_nimg=128")) == 2
    assert "is not the encoder that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("eval_encoder=nowhere", "eval_encoder: encoder='nowhere': no such run directory or file"),
        ("eval_encoder=colour.safetensors", "was trained on 3 channels, the pictures have 1"),
        ("eval_count=1", "eval_count=1: expected at least 2 samples"),
        ("eval_seeds=0", "eval_seeds=0: expected a positive integer"),
        ("best_by=fid", "expected one of fd, kd"),
        ("rollback=-1", "rollback=-1: expected a number of at least 0"),
        ("rollback_lr=0", "rollback_lr=0.0: expected a number above 0, at most 1"),
        ("min_diversity=nan", "min_diversity=nan: expected a number of at least 0"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change, message
) -> None:
    save_encoder(tmp_path / "colour.safetensors", build_encoder("resnet8", 3, 4))
    monkeypatch.chdir(tmp_path)
    assert train.main(scored(data, tmp_path / "run", change)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill", [pytest.param({"KILL_AT_BLOCK": "8"}, marks=pytest.mark.cluster), {"KILL_AT_BLOCK": "18"}]
)
def test_a_run_killed_within_an_evaluation_repeats_it_to_the_bit(
    data: Path, evaluated: tuple[Path, str], tmp_path: Path, kill: dict[str, str]
) -> None:
    """Three blocks a seed, two seeds: block 8 is of the second evaluation, 18 the last one of the last evaluation."""
    run, call = tmp_path / "run", scored(data, tmp_path / "run", "eval_seeds=2", "keep_last=9")
    killed = fork(tmp_path / "victim", "tests.s3gan.training.killed_train", *call, env=kill)
    assert killed.code == -signal.SIGKILL, killed.output
    again = fork(tmp_path / "again", "s3gan.train", *call)
    assert again.code == 0, again.output
    assert records(run) == records(evaluated[0])
    assert weights(run, 96) == weights(evaluated[0], 96)


@pytest.mark.cluster
def test_two_processes_give_the_scores_of_one(data: Path, tmp_path: Path) -> None:
    """At 16 images only D has learnt, so that the averaged generators are equal to the bit."""
    keys = ["eval_nimg=16", "total_nimg=16", "eval_seeds=2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert fork(tmp_path / "log", "s3gan.train", *scored(data, one, *keys)).code == 0
    for ended in fork_ranks(tmp_path / "ranks", "s3gan.train", *scored(data, two, *keys)):
        assert ended.code == 0, ended.output
    assert len(records(one)) == 1 and records(one) == records(two)
