"""Runs the stages of a pipeline as processes of this machine; a stage starts when those that it needs are done.

Each stage owns ROOT/stages/NAME: ``log.txt``, ``exit.json`` (written by the stage) and ``stage.json``
(what was started, and how long it took over all attempts).
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from cluster_jobs.cli.exit_record import EXIT_FILE_VARIABLE, EXIT_PREEMPTED, add_attempt
from cluster_jobs.core.errors import STOP_FILE, Preempted
from cluster_jobs.pipelines.display import Display, Line, tail
from cluster_jobs.pipelines.launch import executable_words, launch_environment, launch_words, shown_command
from cluster_jobs.pipelines.pipeline import Pipeline, Stage
from cluster_jobs.pipelines.stage_records import exit_record, finished, validate

POLL_SECONDS = 0.2
GRACE_SECONDS = 90.0  # a training stage ends its step and saves a checkpoint in this time
TAIL_LINES = 30


class StageFailed(Exception):
    """A stage ended with an error; ``code`` is its exit code as its exit record says it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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
        """Asks the stage to save and end. A launcher orphans its ranks on a signal, so its run gets a stop file."""
        run_dir = Path(self.stage.arguments.get("run.dir", ""))
        if self.stage.processes == 1:
            self.process.terminate()
        elif self.stage.arguments.get("run.dir") and run_dir.is_dir():
            (run_dir / STOP_FILE).touch()
        else:
            os.killpg(self.process.pid, signal.SIGTERM)

    def close(self) -> dict[str, Any]:
        """Kills what is left of the stage's processes, adds the attempt to its record, and returns its exit record."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        add_attempt(self.directory, shown_command(self.stage), time.monotonic() - self.started)
        record = exit_record(self.root, self.stage.name)
        if record.get("code") is None:  # it ended without writing its record
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
            Preempted: on a signal, or when a stage was preempted; running the command again continues.
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
