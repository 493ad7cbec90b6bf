import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.core.seeds import is_validation
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.run import load_run
from selfsup.encoders.loading import load_encoder, weights_digest
from tests.processes import fork, fork_ranks
from tests.selfsup.toy_shards import make_shards


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose upper half is bright: 190 of 8 px, so that about ten are held out."""
    images = np.random.default_rng(0).integers(0, 60, (190, 1, 8, 8)).astype(np.uint8)
    images[:, :, :4] += 150
    return Path(make_shards(tmp_path_factory.mktemp("sky"), [100, 90], [None] * 190, images=images).directory)


def words(data: Path, run: Path, **keys: object) -> list[str]:
    usual = {"width": 4, "batch": 16, "lr": 1e-2, "warmup_nimg": 64, "ema_nimg": 64, "total_nimg": 640, "threads": 1}
    cadences = {"log_nimg": 160, "checkpoint_nimg": 160, "eval_nimg": 320, "sample_nimg": 320, "shift": 1}
    chosen = [f"{name}={value}" for name, value in (usual | cadences | keys).items()]
    return [f"data={data}", "task=rotation", f"run.dir={run}", *chosen]


@pytest.mark.slow
def test_rotation_is_learned_scored_on_held_out_pictures_and_left_for_others(sky: Path, tmp_path: Path):
    run = tmp_path / "run"
    ended = fork(tmp_path / "log", "selfsup.pretrain", *words(sky, run))
    assert ended.code == 0, ended.output
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = {line["nimg"]: line["held_out/accuracy"] for line in lines if "held_out/accuracy" in line}
    assert list(scores) == [320, 640] and scores[640] > 0.9
    held_out = sum(map(is_validation, Shards(sky).keys()))
    row = json.loads((run / "report" / "pretrain.json").read_text())["table"]["rows"][0]
    assert row == ["rotation", 640, held_out, f"{scores[640]:.4f}", 0.25] and held_out > 0
    assert (run / "report" / "rotation.png").is_file() and len(list((run / "samples").glob("*.png"))) == 2
    picture = torch.rand(2, 1, 8, 8)
    from_run, from_file = (load_encoder(path, 1, "cpu")[0] for path in (run, run / "encoder.safetensors"))
    assert torch.equal(from_run(picture), from_file(picture))


@pytest.mark.slow
def test_a_killed_run_started_again_ends_with_the_bits_of_an_uninterrupted_one(sky: Path, tmp_path: Path):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    assert fork(tmp_path / "log", "selfsup.pretrain", *words(sky, whole)).code == 0
    env = {"KILL_AT": "*/checkpoints/000000000480.json"}
    killed = fork(tmp_path / "log", "tests.killed", "selfsup.pretrain", *words(sky, run), env=env)
    assert killed.code == -signal.SIGKILL, killed.output
    ended = fork(tmp_path / "log", "selfsup.pretrain", *words(sky, run))
    assert ended.code == 0 and "at 320 images" in ended.output
    encoders = [load_encoder(path / "encoder.safetensors", 1, "cpu")[0] for path in (run, whole)]
    assert weights_digest(encoders[0]) == weights_digest(encoders[1])
    last = "checkpoints/000000000640.safetensors"
    assert (run / last).read_bytes() == (whole / last).read_bytes()


@pytest.mark.slow
def test_an_evaluation_between_two_checkpoints_is_the_score_of_one_of_its_own(sky: Path, tmp_path: Path):
    run = tmp_path / "run"
    cadences = {"total_nimg": 128, "checkpoint_nimg": 64, "eval_nimg": 80, "sample_nimg": 128, "keep_last": 9}
    assert fork(tmp_path / "log", "selfsup.pretrain", *words(sky, run, **cadences)).code == 0
    scores = {int(path.stem): json.loads(path.read_text())["score"] for path in (run / "checkpoints").glob("*.json")}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (measured,) = [line["held_out/accuracy"] for line in lines if "held_out/accuracy" in line]
    assert scores == {64: None, 80: measured, 128: None} and load_run(run, "best")[2] == 80


@pytest.mark.slow
def test_micro_batches_learn_rotation_as_well_and_take_as_many_steps(sky: Path, tmp_path: Path):
    run = tmp_path / "run"
    ended = fork(tmp_path / "log", "selfsup.pretrain", *words(sky, run, accumulate=4))
    assert ended.code == 0, ended.output
    assert "at 4 images a micro-batch" in ended.output
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("held_out/accuracy", 0.0) for line in lines) > 0.9
    steps = {moments["step"].item() for moments in load_run(run)[1]["optimizer"]["state"].values()}
    assert steps == {640 // 16}


@pytest.mark.slow
def test_two_processes_train_what_one_trains(sky: Path, tmp_path: Path):
    short = {"total_nimg": 64, "checkpoint_nimg": 64, "lr": 1e-3, "eval_nimg": 64}
    assert fork(tmp_path / "log", "selfsup.pretrain", *words(sky, tmp_path / "one", **short)).code == 0
    ends = fork_ranks(tmp_path / "log2", "selfsup.pretrain", *words(sky, tmp_path / "two", **short))
    assert [end.code for end in ends] == [0, 0], [end.output for end in ends]
    one, two = (load_run(tmp_path / name)[1]["model"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", "rotatoin", "rotation"),
        ("encoder", "resnet9", "resnet8"),
        ("lr", "-1", "positive"),
        ("accumulate", "3", "positive divisor of batch=16"),
        ("ema_nimg", "0", "at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_two(key, value, message, sky, tmp_path, capsys):
    from selfsup.pretrain import main

    assert main([*words(sky, tmp_path / "run", validate="true"), f"{key}={value}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "run").exists()
