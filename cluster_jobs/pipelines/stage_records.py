"""The state of a pipeline's root: exit records, finished stages, validation of the others, and the root's lock."""

import concurrent.futures
import contextlib
import fcntl
import io
import multiprocessing
import os
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster_jobs.cli.exit_record import EXIT_FILE_VARIABLE
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import make_parent, read_json
from cluster_jobs.pipelines.pipeline import Pipeline, Stage


def exit_record(root: Path, name: str) -> dict[str, Any]:
    """The exit record of a stage; empty where there is no readable one."""
    try:
        return read_json(root / "stages" / name / "exit.json")
    except UserError:
        return {}


def finished(pipeline: Pipeline, root: Path) -> set[str]:
    """The stages that need not run: done by this command, outputs in place, and no stage they need done later.

    Raises:
        UserError: a stage is done, but by another command than the pipeline has now.
    """
    done: dict[str, int] = {}
    for name, stage in pipeline.stages.items():
        record = exit_record(root, name)
        if record.get("state") != "done":
            continue
        if record["command"] != stage.command:
            before, now = shlex.split(record["command"]), shlex.split(stage.command)
            changes = [f"-{word}" for word in before if word not in now] + [
                f"+{word}" for word in now if word not in before
            ]
            raise UserError(
                f"stage {name!r} in {root} was done by another command ({' '.join(changes)}): "
                f"choose another root, or remove {root / 'stages' / name} to run the stage again"
            )
        when = (root / "stages" / name / "exit.json").stat().st_mtime_ns
        fresh = all(need in done and done[need] <= when for need in stage.needs)
        if fresh and all(output.exists() for output in stage.outputs):
            done[name] = when
    return set(done)


def _validate_one(module: str, words: tuple[str, ...]) -> tuple[int, str]:
    """Runs one command with validate=true in this process; returns its exit code and what it printed."""
    os.environ.pop(EXIT_FILE_VARIABLE, None)
    sys.argv = [module, *words, "validate=true"]
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
    return code, printed.getvalue()


def validate(stages: list[Stage]) -> dict[str, str]:
    """Runs every stage's command with validate=true, each in a process of its own; returns what each printed.

    The processes are forked from one that has the large libraries loaded: loading takes longer than any check.

    Raises:
        UserError: names every stage that its command refuses.
    """
    if not stages:
        return {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "accelerate", "hydra", "sklearn.cluster", "matplotlib.figure"])
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context, max_tasks_per_child=1) as pool:
        results = list(pool.map(_validate_one, [s.module for s in stages], [s.words for s in stages]))
    refused = [
        f"stage {stage.name!r}: {printed.strip()[-2000:] or f'exit code {code}'}\n  command: {stage.command}"
        for stage, (code, printed) in zip(stages, results, strict=True)
        if code != 0
    ]
    if refused:
        raise UserError("\n".join(["nothing was started, because commands are refused:", *refused]))
    return {stage.name: printed for stage, (_, printed) in zip(stages, results, strict=True)}


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Holds ROOT/.lock, without which nothing in the root is written.

    Yields its descriptor for the stages to inherit: while one outlives its submit, no second submit can start it again.

    Raises:
        UserError: another submit is at work, or the root cannot be written to.
    """
    path = root / ".lock"
    make_parent(path)
    try:
        stream = open(path, "w")  # noqa: SIM115  # the errors of the body are not those of opening
    except OSError as error:
        raise UserError(f"root={str(root)!r}: cannot write in it ({error.strerror})") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another submit, or a stage that one left behind, is still running here") from None
        yield stream.fileno()
