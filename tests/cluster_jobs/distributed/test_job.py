import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster_jobs.cli.config import CommandKeys, TrainKeys
from cluster_jobs.distributed.job import Job, reader_workers, set_threads
from tests.cluster_jobs.distributed.toy_collectives import WEIGHTS, pairwise_losses
from tests.processes import launch

COLLECTIVES = "tests.cluster_jobs.distributed.toy_collectives"


def assert_as_the_global_loss(seen: dict[str, Any], ranks: int) -> None:
    """Gathered features are in rank order, and averaged gradients are those of one process with all samples."""
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    samples = torch.cat([torch.arange(6.0).reshape(2, 3) + rank for rank in range(ranks)])
    features = samples / 10 @ weights
    pairwise_losses(features, features).mean().backward()
    torch.testing.assert_close(torch.tensor(seen["joined"]), features.detach())
    torch.testing.assert_close(torch.tensor(seen["averaged"]), weights.grad)


@pytest.mark.slow
def test_two_processes_gather_reduce_and_differentiate(tmp_path: Path) -> None:
    ended = launch(COLLECTIVES, f"out={tmp_path}", "threads=1", processes=2)
    assert ended.code == 0, ended.output
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["place"] for rank in ranks] == [[0, 2, True, "cpu", 1], [1, 2, False, "cpu", 1]]
    for rank, seen in enumerate(ranks):
        assert seen["uneven"] == [[100], [101], [102]]  # none from rank 0, three from rank 1
        assert seen["swapped"] == [[1.5, 1.5], [1.5, 1.5], [2.5, 2.5]]
        assert seen["flags"] == [True, True, False]
        assert seen["empty"] == [0, 4]
        assert seen["summed"] == [1.0 + 2.0, 20.0] and seen["unchanged"] == [1.0 + rank, 10.0]
        assert seen["total"] == [1.0 + 4.0, 8.0]
        # the losses are (rank + 1) * sum(total), and every rank's total depends on every leaf
        assert seen["gradient"] == [(1 + 2) * 2 * (1.0 + rank), (1 + 2) * 2 * 2.0]
        assert_as_the_global_loss(seen, ranks=2)
        assert seen["tracked"] == [0, 1, 2]
    assert ended.output.count("said by") == 1 and "said by 0" in ended.output
    assert ended.output.count("counting: 6 images in") == 1
    assert "Warning" not in ended.output


@pytest.mark.slow
def test_the_same_command_runs_alone_without_a_launcher(tmp_path: Path) -> None:
    ended = launch(COLLECTIVES, f"out={tmp_path}", "threads=1")
    assert ended.code == 0, ended.output
    seen = json.loads((tmp_path / "0.json").read_text())
    assert seen["place"] == [0, 1, True, "cpu", 1]
    assert seen["uneven"] == [] and seen["summed"] == [1.0, 10.0] and seen["gradient"] == [2.0, 4.0]
    assert_as_the_global_loss(seen, ranks=1)
    assert "Warning" not in ended.output


def test_alone_the_collectives_return_what_they_are_given() -> None:
    job = Job.open(CommandKeys(threads=torch.get_num_threads()))
    tensor = torch.arange(3.0)
    assert job.reduce(tensor) is tensor and job.gather(tensor) is tensor
    assert job.is_main and (job.rank, job.world) == (0, 1)
    job.barrier()


def test_threads_are_set_and_zero_takes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert set_threads(0) == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_readers_are_chosen_by_device_unless_the_user_did() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert reader_workers(TrainKeys(workers=3), cpu) == reader_workers(TrainKeys(workers=3), gpu) == 3
    assert reader_workers(TrainKeys(workers=0), gpu) == 0
    assert reader_workers(TrainKeys(), cpu) == 0 and 1 <= reader_workers(TrainKeys(), gpu) <= 8
