"""The protocol of pretext tasks carries tasks that are not shaped like rotation: four toys, in the real loop."""

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cluster_jobs.training.run import load_run
from selfsup.encoders.loading import load_encoder
from selfsup.pretext.protocol import Gather
from tests.processes import fork, fork_ranks
from tests.selfsup.pretext.toy_tasks import TEMPERATURE, TOYS, nt_xent
from tests.selfsup.toy_shards import make_shards

COMMAND = "tests.selfsup.pretext.toy_pretrain"
TASKS = ("contrast", "queue", "adversarial", "clusters")
Train = Callable[[str], Path]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """190 grey pictures of 8 px, each with a shade and a noise of its own, so that about ten are held out."""
    draw = np.random.default_rng(0)
    images = (draw.integers(0, 160, (190, 1, 1, 1)) + draw.integers(0, 90, (190, 1, 8, 8))).astype(np.uint8)
    return Path(make_shards(tmp_path_factory.mktemp("pictures"), [100, 90], [None] * 190, images=images).directory)


def words(data: Path, task: str, run: Path, **keys: object) -> list[str]:
    """Six steps; evaluations at 48 and 96 images, and checkpoints at 32 and 64 besides; clusters at 0, 48 and 80."""
    usual = {"width": 4, "batch": 16, "total_nimg": 96, "lr": 1e-3, "warmup_nimg": 0, "ema_nimg": 32, "threads": 1}
    cadences = {"log_nimg": 32, "checkpoint_nimg": 32, "eval_nimg": 48, "sample_nimg": 96, "relabel_nimg": 40}
    chosen = [f"{name}={value}" for name, value in (usual | cadences | {"keep_last": 9} | keys).items()]
    return [f"data={data}", f"task={task}", f"run.dir={run}", *chosen]


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a task in one process without interruption, once."""
    runs: dict[str, Path] = {}

    def train(task: str) -> Path:
        if task not in runs:
            run = tmp_path_factory.mktemp(task) / "run"
            ended = fork(run.with_name("log"), COMMAND, *words(pictures, task, run))
            assert ended.code == 0, ended.output
            runs[task] = run
        return runs[task]

    return train


def lines_with(run: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["nimg"]: line[name] for line in lines if name in line}


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_killed_toy_started_again_ends_with_the_bits_of_an_uninterrupted_one(task, trained, pictures, tmp_path):
    whole, run = trained(task), tmp_path / "run"
    env = {"KILL_AT": "*/checkpoints/000000000096.json"}
    killed = fork(tmp_path / "log", "tests.killed", COMMAND, *words(pictures, task, run), env=env)
    assert killed.code == -signal.SIGKILL, killed.output
    ended = fork(tmp_path / "log", COMMAND, *words(pictures, task, run))
    assert ended.code == 0 and "at 64 images" in ended.output, ended.output
    last = "checkpoints/000000000096"
    assert (run / f"{last}.safetensors").read_bytes() == (whole / f"{last}.safetensors").read_bytes()
    states = [dict(json.loads((path / f"{last}.json").read_text())["state"]["dict"]) for path in (run, whole)]
    assert states[0] == states[1]
    clusters = [{file.name: file.read_bytes() for file in path.glob("clusters/*.i32")} for path in (run, whole)]
    assert clusters[0] == clusters[1]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_train_and_score_a_toy_as_one_process_does(task, trained, pictures, tmp_path):
    one, two = trained(task), tmp_path / "run"
    ends = fork_ranks(tmp_path / "log", COMMAND, *words(pictures, task, two))
    assert [end.code for end in ends] == [0, 0], [end.output for end in ends]
    assert largest_difference(*(load_run(run)[1]["model"] for run in (one, two))) < 1e-3
    name = f"held_out/{TOYS[task].score}"
    assert lines_with(two, name) == pytest.approx(lines_with(one, name), rel=1e-3)


@pytest.mark.slow
def test_without_the_pictures_of_other_ranks_a_contrastive_task_learns_something_else(trained, pictures, tmp_path):
    one, two = trained("contrast"), tmp_path / "run"
    ends = fork_ranks(tmp_path / "log", COMMAND, *words(pictures, "contrast_within_rank", two))
    assert [end.code for end in ends] == [0, 0], [end.output for end in ends]
    assert largest_difference(*(load_run(run)[1]["model"] for run in (one, two))) > 3e-3


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_best_checkpoint_is_the_highest_or_lowest_score_as_the_task_says(task, trained):
    run = trained(task)
    scores = lines_with(run, f"held_out/{TOYS[task].score}")
    attached = {int(path.stem): json.loads(path.read_text())["score"] for path in (run / "checkpoints").glob("*.json")}
    assert attached == {32: None, 48: scores[48], 64: None, 96: scores[96]}  # no checkpoint is due at 48 by itself
    best = max if TOYS[task].higher_is_better else min
    assert load_run(run, "best")[2] == best(scores, key=scores.__getitem__) and scores[48] != scores[96]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_encoder_of_a_toy_is_left_for_others(task, trained):
    run, picture = trained(task), torch.rand(2, 1, 8, 8)
    from_run, from_file = (load_encoder(path, 1, "cpu")[0] for path in (run, run / "encoder.safetensors"))
    assert torch.equal(from_run(picture), from_file(picture))
    section = json.loads((run / "report" / "pretrain.json").read_text())
    assert section["pictures"][0]["caption"] == TOYS[task].caption


@pytest.mark.slow
def test_targets_are_found_anew_at_their_cadence_and_a_checkpoint_names_those_in_force(trained):
    run = trained("clusters")
    paths = (run / "checkpoints").glob("*.safetensors")
    in_force = {int(path.stem): load_run(run, str(path))[1]["clusters"]["nimg"] for path in paths}
    assert in_force == {32: 0, 48: 0, 64: 48, 96: 80}
    assert sorted(lines_with(run, "targets/changed")) == [64, 96]


@pytest.mark.slow
def test_the_memory_of_each_optimizer_step_is_that_of_its_own_network(trained):
    lines = trained("adversarial").with_name("log").read_text().splitlines()
    parameters = {line.split(": ")[0]: line.split(": ")[1].split(",")[0] for line in lines if "of its step" in line}
    of = "memory of a process"  # the discriminator has 105 weights, the painter about 5,000
    assert parameters == {f"{of}, discriminator": "0.00 MiB parameters", f"{of}, painter": "0.02 MiB parameters"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["adversarial", "queue"])
def test_micro_batches_take_as_many_steps_of_every_optimizer(task, pictures, tmp_path):
    ended = fork(tmp_path / "log", COMMAND, *words(pictures, task, tmp_path / "run", accumulate=2, total_nimg=64))
    assert ended.code == 0, ended.output
    state = load_run(tmp_path / "run")[1]
    names = {"adversarial": ["optimizer_discriminator", "optimizer_painter"], "queue": ["optimizer"]}[task]
    assert sorted(name for name in state if name.startswith("optimizer")) == names
    assert {moments["step"].item() for name in names for moments in state[name]["state"].values()} == {4}
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert task != "queue" or state["model"]["pointer"].item() == 64 % 48


@pytest.mark.slow
def test_every_optimizer_has_the_learning_rate_and_the_betas_of_its_step(trained):
    state = load_run(trained("adversarial"))[1]
    groups = {name: state[f"optimizer_{name}"]["param_groups"][0] for name in ("discriminator", "painter")}
    assert groups["discriminator"]["lr"] == 0.5 * groups["painter"]["lr"] == 0.5e-3
    assert tuple(groups["discriminator"]["betas"]) == (0.5, 0.999) and tuple(groups["painter"]["betas"]) == (0.9, 0.999)


@pytest.mark.slow
def test_a_batch_that_is_not_finite_leaves_no_trace_in_the_queue(pictures, tmp_path):
    ended = fork(tmp_path / "log", COMMAND, *words(pictures, "queue_with_a_bad_batch", tmp_path / "run"))
    assert ended.code == 0, ended.output
    assert lines_with(tmp_path / "run", "skipped") == {32: 0, 64: 0.5, 96: 0}
    state = load_run(tmp_path / "run")[1]
    assert all(tensor.isfinite().all() for part in ("model", "ema") for tensor in state[part].values())
    assert state["model"]["pointer"].item() == 5 * 16 % 48


def test_the_contrastive_loss_is_that_of_a_double_loop():
    draw = torch.Generator().manual_seed(0)
    first, second = (F.normalize(torch.randn(4, 3, generator=draw, dtype=torch.float64), dim=1) for _ in range(2))
    views, expected = [*first, *second], torch.zeros(4, dtype=torch.float64)
    for i, picture in itertools.product((0, 4), range(4)):
        anchor, positive = views[i + picture], views[(i + picture + 4) % 8]
        others = [torch.exp(anchor @ view / TEMPERATURE) for j, view in enumerate(views) if j != i + picture]
        expected[picture] -= torch.log(torch.exp(anchor @ positive / TEMPERATURE) / sum(others)) / 2
    torch.testing.assert_close(nt_xent(first, second, Gather()), expected)
    for rank, own in enumerate((slice(0, 2), slice(2, 4))):  # as each of two ranks sees it
        gather = Gather(lambda part, own=own: first if torch.equal(part, first[own]) else second, rank)
        torch.testing.assert_close(nt_xent(first[own], second[own], gather), expected[own])
