"""Runs the stages of a pipeline as processes of this machine: what is ready starts, what is done is skipped.

Each stage owns ROOT/stages/NAME: ``log.txt``, ``exit.json`` (written by the stage itself) and ``stage.json``
(what was started, and how long it took over all its lives).
"""

import concurrent.futures
import contextlib
import fcntl
import io
import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster_jobs.cli.exit_record import EXIT_FILE_VARIABLE, EXIT_PREEMPTED, add_life
from cluster_jobs.core.errors import STOP_FILE, Preempted, UserError
from cluster_jobs.core.files import make_parent, read_json
from cluster_jobs.pipelines.display import Display, Line, tail
from cluster_jobs.pipelines.launch import executable_words, launch_environment, launch_words, shown_command
from cluster_jobs.pipelines.pipeline import Pipeline, Stage

POLL_SECONDS = 0.2
GRACE_SECONDS = 90.0  # a training stage ends its step and saves a checkpoint in this time
TAIL_LINES = 30


class StageFailed(Exception):
    """A stage ended with an error; ``code`` is its exit code as its exit record says it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def exit_record(root: Path, name: str) -> dict[str, Any]:
    """What a stage wrote about its end; empty where it wrote nothing readable."""
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
    """Holds ROOT/.lock, and gives its descriptor for the stages to inherit: none that outlived its submit is started
    twice. Nothing in the root is written without it.

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


class Process:
    """One running stage."""

    def __init__(self, stage: Stage, root: Path, lock: int) -> None:
        self.stage, self.root = stage, root
        self.directory = root / "stages" / stage.name
        self.directory.mkdir(parents=True, exist_ok=True)
        exit_file = self.directory / "exit.json"
        exit_file.unlink(missing_ok=True)
        variables = {EXIT_FILE_VARIABLE: str(exit_file), "PYTHONUNBUFFERED": "1"} | launch_environment(stage)
        self.started = time.monotonic()
        with open(self.directory / "log.txt", "ab") as log:
            log.write(f"$ {shown_command(stage)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                executable_words(launch_words(stage)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | variables,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C goes to submit, which stops its stages in order
            )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        """Asks the stage to save and end. A launcher orphans its ranks on a signal: it gets a stop file."""
        run_dir = Path(self.stage.arguments.get("run.dir", ""))
        if self.stage.processes == 1:
            self.process.terminate()
        elif self.stage.arguments.get("run.dir") and run_dir.is_dir():
            (run_dir / STOP_FILE).touch()
        else:
            os.killpg(self.process.pid, signal.SIGTERM)

    def close(self) -> dict[str, Any]:
        """Ends what is left of the stage's processes, adds up its time, returns its exit record."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        add_life(self.directory, shown_command(self.stage), time.monotonic() - self.started)
        record = exit_record(self.root, self.stage.name)
        if record.get("code") is None:  # it died before it could say why
            record |= {
                "state": "failed",
                "code": self.process.returncode or 1,
                "message": "ended without an exit record",
            }
        return record


class Local:
    """The stages of one pipeline on this machine."""

    def __init__(self, pipeline: Pipeline, root: Path, parallel: int) -> None:
        self.pipeline, self.root, self.parallel = pipeline, root, parallel
        self.lines = {name: Line(name, root / "stages" / name / "log.txt") for name in pipeline.stages}
        self.running: dict[str, Process] = {}
        self.stops = 0  # signals received

    def run(self, lock: int) -> None:
        """Runs every stage that is not finished.

        Args:
            lock: descriptor of the root's lock, which the caller holds (:func:`locked`).

        Raises:
            UserError: a refused command (nothing was started).
            StageFailed: the first failure; the other stages were stopped and saved.
            Preempted: on a signal, or when a stage was preempted; the same command continues.
        """
        done = finished(self.pipeline, self.root)
        for name in done:
            self.lines[name].state = "skipped"
        left = [stage for name, stage in self.pipeline.stages.items() if name not in done]
        print(f"{self.root}: {len(done)} stages finished, checking the commands of {len(left)}", flush=True)
        validate(left)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Display(list(self.lines.values())) as display:
                self._schedule(lock, display)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.stops += 1

    def _schedule(self, lock: int, display: Display) -> None:
        settled = ("done", "skipped")
        try:
            while any(line.state not in settled for line in self.lines.values()):
                for name in [name for name, process in self.running.items() if process.ended()]:
                    self._settle(name)
                if self.stops:
                    raise Preempted(f"stopped; the same command continues {self.root}")
                for name, stage in self.pipeline.stages.items():
                    ready = all(self.lines[need].state in settled for need in stage.needs)
                    if ready and self.lines[name].state == "waiting" and len(self.running) < self.parallel:
                        self.running[name] = process = Process(stage, self.root, lock)
                        self.lines[name].state, self.lines[name].started = "running", process.started
                display.refresh()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop_all(display)

    def _settle(self, name: str) -> None:
        """Notes the end of a stage; raises where it was not the end of its work."""
        line = self.lines[name]
        record = self.running.pop(name).close()
        line.seconds = line.elapsed
        if record["state"] == "done":
            line.state = "done"
        elif record["code"] == EXIT_PREEMPTED or self.stops:
            line.state = "stopped"
            raise Preempted(f"stage {name!r} was stopped with everything saved; the same command continues {self.root}")
        else:
            line.state = "failed"
            log = "\n".join(f"  | {text}" for text in tail(line.log, TAIL_LINES))
            message = f"stage {name!r} failed: {record['message']}\n{log}\n  log: {line.log}"
            raise StageFailed(f"{message}\n  command: {shown_command(self.pipeline.stages[name])}", record["code"])

    def _stop_all(self, display: Display) -> None:
        """Stops what still runs, and waits for it; a second signal, or the end of the grace time, kills."""
        patience, asked = time.monotonic() + GRACE_SECONDS, self.stops
        for process in self.running.values():
            if not process.ended():
                process.stop()
        while any(not process.ended() for process in self.running.values()):
            if self.stops > max(asked, 1) or time.monotonic() > patience:
                break
            display.refresh()
            time.sleep(POLL_SECONDS)
        for name, process in self.running.items():
            line = self.lines[name]
            line.seconds = line.elapsed
            line.state = "done" if process.close()["state"] == "done" else "stopped"
        self.running.clear()
