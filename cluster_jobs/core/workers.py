"""Tasks run in worker processes, which end when the command ends, even if it is killed."""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cluster_jobs.core.errors import UserError

AHEAD = 4  # tasks handed out for each worker, so that millions of tasks are never queued at once
Context = TypeVar("Context")
Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    work: Callable[[Context, Task], Result], context: Context, tasks: Iterable[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    """Yields each task with ``work(context, task)``, in the order in which they finish.

    Args:
        work: a function of a module; it, the context (sent once to each worker) and the tasks are pickled.
        workers: processes; up to 1 works in this one, in the order of the tasks.

    Raises:
        UserError: a worker was killed from outside.
    """
    if workers <= 1:
        for task in tasks:
            yield task, work(context, task)
        return
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, spawn, _start, (work, context))
    waiting: dict[Future[Result], Task] = {}
    tasks = iter(tasks)
    try:
        while True:
            for task in itertools.islice(tasks, AHEAD * workers - len(waiting)):
                waiting[executor.submit(_run_task, task)] = task
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError("a worker process was killed (out of memory?); try fewer workers=") from None
    finally:
        executor.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}  # of a worker process: the function and its context


def _start(work: Callable, context: Any) -> None:
    _worker.update(work=work, context=context)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _run_task(task: Any) -> Any:
    return _worker["work"](_worker["context"], task)


def _follow_parent() -> None:
    """Ends this worker when the command is killed: a worker of a pool would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
