import os
import signal

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.workers import cores, run_tasks


def square(offset: int, task: int) -> tuple[int, int]:
    return offset + task**2, os.getpid()


def die(_: None, task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def refuse(_: None, task: int) -> int:
    raise UserError(f"task {task} cannot be done")


def test_one_worker_is_this_process_and_keeps_the_order() -> None:
    done = list(run_tasks(square, 10, range(5), 1))
    assert done == [(task, (10 + task**2, os.getpid())) for task in range(5)]


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert cores() == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_two_workers_do_every_task_once_in_processes_of_their_own() -> None:
    done = list(run_tasks(square, 10, range(50), 2))
    assert sorted((task, value) for task, (value, _) in done) == [(task, 10 + task**2) for task in range(50)]
    assert os.getpid() not in {pid for _, (_, pid) in done}


@pytest.mark.slow
def test_a_killed_worker_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="worker process was killed"):
        list(run_tasks(die, None, range(20), 2))


@pytest.mark.slow
def test_an_error_in_a_worker_arrives_as_it_is() -> None:
    with pytest.raises(UserError, match=r"task \d+ cannot be done"):
        list(run_tasks(refuse, None, range(20), 2))
