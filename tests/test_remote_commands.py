"""Whole commands that read their shards over the network leave what they leave with local shards, byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.training.checkpoint import CheckpointStore
from tests.processes import fork
from tests.selfsup.toy_shards import make_shards
from tests.servers import FAULTS, files, serving

PRETRAIN = ["task=rotation", "width=4", "batch=16", "total_nimg=320", "log_nimg=160", "checkpoint_nimg=160"]
PRETRAIN += ["eval_nimg=160", "sample_nimg=160", "warmup_nimg=64", "ema_nimg=64", "shift=1", "threads=1"]


@pytest.fixture(scope="module")
def www(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the shards of 190 and 60 pictures of 8 px as train/ and test/."""
    root = tmp_path_factory.mktemp("www")
    for split, counts in (("train", [100, 90]), ("test", [60])):
        total = sum(counts)
        images = np.random.default_rng(len(split)).integers(0, 256, (total, 1, 8, 8)).astype(np.uint8)
        make_shards(root / split, counts, [i % 3 for i in range(total)], images=images)
    return root


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [0, 2])
def test_pretraining_over_a_faulty_network_ends_with_the_same_weights(www: Path, tmp_path: Path, workers: int) -> None:
    environment = {"SHARD_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
    with serving(files(www), FAULTS) as server:
        for name, data in (("local", str(www / "train")), ("remote", f"{server.url}/train")):
            words = [f"data={data}", f"run.dir={tmp_path / name}", *PRETRAIN, f"workers={workers}"]
            ended = fork(tmp_path / f"{name}.log", "selfsup.pretrain", *words, env=environment)
            assert ended.code == 0, ended.output
        assert set(server.met) == set(FAULTS)
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert (local / "encoder.safetensors").read_bytes() == (remote / "encoder.safetensors").read_bytes()
    newest = [CheckpointStore(run / "checkpoints").latest() for run in (local, remote)]
    assert newest[0] is not None and newest[1] is not None and newest[0][1] == newest[1][1] == 320
    assert repr(newest[0][0]["model"]) == repr(newest[1][0]["model"])


@pytest.mark.cluster
def test_a_command_that_wants_train_and_test_finds_both_below_a_url(www: Path, tmp_path: Path) -> None:
    environment = {"SHARD_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
    encoder = tmp_path / "run"
    words = [f"data={www / 'train'}", f"run.dir={encoder}", *PRETRAIN]
    assert fork(tmp_path / "log", "selfsup.pretrain", *words).code == 0
    found = []
    with serving(files(www)) as server:
        for name, data in (("local", str(www)), ("remote", server.url)):
            words = [f"data={data}", f"encoder={encoder}", f"out={tmp_path / name}", "threads=1"]
            ended = fork(tmp_path / "log", "selfsup.probe", *words, env=environment)
            assert ended.code == 0, ended.output
            found.append(json.loads((tmp_path / name / "probe.json").read_text())["scores"])
    assert found[0] == found[1] and None not in found[0].values()
