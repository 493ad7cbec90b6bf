"""Runs of simgan.train with every kind of key: ablations, an adaptive schedule, collapse, drift, other world sizes."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cluster_jobs.data.shards import Shards
from cluster_jobs.training.checkpoint import CheckpointStore, load_state
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from simgan.networks.trained_refiner import load_refiner, refine_images
from tests.cluster_jobs.tiny import write_tiny_shards
from tests.processes import Ended, fork, fork_ranks
from tests.simgan.domains import SIZE, train_words, write_domain

pytestmark = pytest.mark.slow
LAST = "checkpoints/000000000080.safetensors"


def train(directory: Path, synthetic: Path, real: Path, run: str = "run", **keys: object) -> Ended:
    words = train_words(synthetic, real, directory / run, **keys)
    return fork(directory / f"{run}.log", "simgan.train", *words)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "keys",
    [{"history": 0}, {"discriminator": "image"}, {"psi": "gradient"}, {"psi": "colour_mean"}, {"schedule": "auto"}],
)
def test_every_ablation_trains_and_another_way(
    keys: dict[str, object], tmp_path: Path, synthetic: Path, real: Path, trained: Path
) -> None:
    ended = train(tmp_path, synthetic, real, **keys)
    assert ended.code == 0, ended.output
    state, usual = load_state(tmp_path / "run" / LAST)[0], load_state(trained / LAST)[0]
    if keys != {"schedule": "auto"}:  # here too short for a change of K_g
        assert any(not np.array_equal(state["refiner"][name], usual["refiner"][name]) for name in usual["refiner"])
    assert {"loss/change", "loss/adversarial", "loss/d", "change/pixel"} <= set(lines(tmp_path / "run")[-1])


def test_pictures_that_are_not_square_are_trained_on_and_refined(tmp_path: Path) -> None:
    synthetic = write_tiny_shards(tmp_path / "synthetic", size=(10, 14), channels=3)
    real = write_tiny_shards(tmp_path / "real", (20,), size=(10, 14), channels=3)
    ended = train(tmp_path, synthetic, real, psi="colour_mean", fold=1)
    assert ended.code == 0, ended.output
    words = [f"run={tmp_path / 'run'}", f"synthetic={synthetic}", f"out={tmp_path / 'pool'}"]
    assert fork(tmp_path / "refine.log", "simgan.refine", *words).code == 0
    assert Shards(tmp_path / "pool").shape == (3, 10, 14)
    square = write_tiny_shards(tmp_path / "square", size=14, channels=3)
    words = [f"run={tmp_path / 'run'}", f"synthetic={square}", f"out={tmp_path / 'none'}"]
    refused = fork(tmp_path / "refused.log", "simgan.refine", *words)
    assert (
        refused.code == 2 and "images of 3 × 14 × 14" in refused.output and "trained on 3 × 10 × 14" in refused.output
    )


@pytest.mark.cluster
def test_an_adaptive_run_that_is_killed_ends_with_the_bits_of_one_that_is_not(
    tmp_path: Path, synthetic: Path, real: Path
) -> None:
    keys = {"schedule": "auto", "log_nimg": 8, "d_loss_low": 5, "d_loss_high": 9, "max_k_g": 4}  # K_g always rises
    assert train(tmp_path, synthetic, real, "whole", total_nimg=160, **keys).code == 0
    words = train_words(synthetic, real, tmp_path / "cut", total_nimg=160, **keys)
    env = {"KILL_AT": "*/checkpoints/000000000080.json"}
    first = fork(tmp_path / "first", "tests.killed", "simgan.train", *words, env=env)
    assert first.code == -signal.SIGKILL, first.output
    second = fork(tmp_path / "second", "simgan.train", *words)
    assert second.code == 0 and "at 72 images" in second.output, second.output
    last = "checkpoints/000000000160.safetensors"
    assert (tmp_path / "cut" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
    assert load_state(tmp_path / "cut" / last)[0]["schedule"]["k_g"] == 4


@pytest.mark.cluster
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, synthetic: Path, real: Path, trained: Path
) -> None:
    """One process, then two, then one: as one throughout, up to rounding, which Adam carries into every weight."""
    run = tmp_path / "run"
    for total, processes in ((32, 1), (56, 2), (80, 1)):
        words = train_words(synthetic, real, run, total_nimg=total)
        if processes == 1:
            ended = [fork(tmp_path / f"{total}.log", "simgan.train", *words)]
        else:
            ended = fork_ranks(tmp_path / f"{total}.log", "simgan.train", *words)
        assert [rank.code for rank in ended] == [0] * processes, ended[0].output
    stores = (CheckpointStore(directory / "checkpoints") for directory in (run, trained))
    (elastic, _), (one, _) = (found for store in stores if (found := store.latest()) is not None)
    assert elastic["history"]["filled"] == one["history"]["filled"] == 12
    assert (elastic["history"]["images"] - one["history"]["images"]).abs().max() < 1e-2
    for name, weight in one["refiner_ema"].items():
        assert (elastic["refiner_ema"][name] - weight).abs().max() < 2e-3


def test_a_refiner_on_self_regularisation_alone_stays_near_the_identity(
    tmp_path: Path, synthetic: Path, real: Path
) -> None:
    assert train(tmp_path, synthetic, real, warm_refiner_nimg=80).code == 0
    refiner, _ = load_refiner(str(tmp_path / "run"), "last", "cpu")  # type: ignore[arg-type]
    shards = Shards(synthetic)
    images = np.stack([shards.image(index) for index in range(10)])
    assert np.abs(refine_images(refiner, images, "cpu").astype(int) - images).mean() < 2  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "report" / "drift.json").exists()


@pytest.mark.cluster
def test_a_run_whose_refiner_is_not_held_back_is_flagged(tmp_path: Path, synthetic: Path, real: Path) -> None:
    keys = {"total_nimg": 1200, "lr_r": 0.02, "checkpoint_nimg": 400, "max_change": 0.2, "rollback": 0, "keep_last": 2}
    held, free = (train(tmp_path, synthetic, real, str(w), regularisation=w, **keys) for w in (10, 0))
    assert held.code == free.code == 0, free.output
    assert free.output.count("R leaves its input behind") == 1 and "R leaves its input behind" not in held.output
    section = json.loads((tmp_path / "0" / "report" / "drift.json").read_text())
    assert section["table"]["rows"] and not (tmp_path / "10" / "report" / "drift.json").exists()


def test_a_run_that_collapses_goes_back_and_ends_with_2_when_that_does_not_help(
    tmp_path: Path, synthetic: Path, real: Path
) -> None:
    keys = {"lr_d": 100.0, "log_nimg": 8, "health_nimg": 24, "rollback": 2, "rollback_lr": 1, "total_nimg": 4000}
    ended = train(tmp_path, synthetic, real, **keys)
    assert ended.code == 2, ended.output
    assert ended.output.count("back to the checkpoint of") == 2 and "after 2 rollbacks (rollback=2)" in ended.output
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["code"] == 2
    assert len(json.loads((tmp_path / "run" / "report" / "health.json").read_text())["table"]["rows"]) == 3


def test_an_encoder_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, synthetic: Path, real: Path
) -> None:
    ended = train(tmp_path, synthetic, real, psi="encoder", psi_encoder=tmp_path / "nowhere")
    assert ended.code == 2 and "psi_encoder: " in ended.output and not (tmp_path / "run" / "config.yaml").exists()


def test_a_run_does_not_go_on_with_other_pictures(tmp_path: Path, real: Path) -> None:
    assert train(tmp_path, write_domain(tmp_path / "synthetic"), real).code == 0
    facts = (tmp_path / "run" / "network.json").read_bytes()
    shutil.rmtree(tmp_path / "synthetic")
    ended = train(tmp_path, write_domain(tmp_path / "synthetic", seed=7), real, total_nimg=160)
    assert ended.code == 2 and "other data or another encoder (synthetic_fingerprint differ)" in ended.output
    assert (tmp_path / "run" / "network.json").read_bytes() == facts


def test_a_run_with_former_names_of_keys_goes_on_under_the_present_ones(
    trained: Path, synthetic: Path, real: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    frozen = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    frozen["verdict"] = {"patch": "local", "image": "global"}[frozen.pop("discriminator")]
    frozen["most_k_g"] = frozen.pop("max_k_g")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(frozen))
    ended = train(tmp_path, synthetic, real, total_nimg=88)
    assert ended.code == 0, ended.output
    refused = train(tmp_path, synthetic, real, total_nimg=88, discriminator="image")
    assert refused.code == 2 and "discriminator: 'patch' -> 'image'" in refused.output
    written = train(tmp_path, synthetic, real, verdict="global")
    assert written.code == 2 and "this key is called discriminator now: write discriminator=image" in written.output


@pytest.mark.parametrize("kind", ["safetensors", "TorchScript"])
def test_a_refiner_is_trained_on_what_an_encoder_compares(
    kind: str, synthetic: Path, real: Path, tmp_path: Path
) -> None:
    encoder, path = (
        build_encoder("resnet8", 1, 4).eval(),
        tmp_path / f"encoder.{'pt' if kind == 'TorchScript' else kind}",
    )
    if kind == "TorchScript":
        torch.jit.trace(encoder, torch.zeros(2, 1, SIZE, SIZE)).save(path)
    else:
        save_encoder(path, encoder)
    ended = train(tmp_path, synthetic, real, psi="encoder", psi_encoder=path, total_nimg=32)
    assert ended.code == 0, ended.output
