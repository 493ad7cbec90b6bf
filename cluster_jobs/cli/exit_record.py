"""How a command ended: its exit code, and the exit record that pipelines and batch scripts read.

A launcher turns every failure into exit code 1, so the true exit code is in the record.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.lock import used_by_another

EXIT_DONE, EXIT_USER, EXIT_HUNG, EXIT_PREEMPTED = 0, 2, 70, 75
EXIT_FILE_VARIABLE = "CLUSTER_JOBS_EXIT_FILE"
PATIENCE = 3.0  # seconds that a rank waits for rank 0 to report the same error

_exit_claimed = threading.Event()  # a thread other than the main one reports the end of this process, and ends it


def rank() -> int:
    """This process's number among the launched ones."""
    return int(os.environ.get("RANK", "0"))


def launched_ranks() -> int:
    """How many processes run this command together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class ExitRecord:
    """Writes the exit record to ``run.dir/exit.json`` and to the file that a pipeline names in the environment."""

    of_process: "ExitRecord | None" = None  # of the command that this process runs, the newest one

    def __init__(self, command_line: str, words: Sequence[str]) -> None:
        ExitRecord.of_process = self
        self.command_line = command_line
        given = {name: value for name, _, value in (word.partition("=") for word in words)}
        self.quiet = (
            given.get("validate", "false") != "false"
        )  # a check must not touch the run it checks, even when it cannot be parsed
        self.files = [Path(given["run.dir"]) / "exit.json"] if given.get("run.dir") else []
        if os.environ.get(EXIT_FILE_VARIABLE):
            self.files.append(Path(os.environ[EXIT_FILE_VARIABLE]))

    def write(self, state: str, code: int | None, message: str) -> None:
        """Writes the record: rank 0 always, another rank only when it fails."""
        if self.quiet or (rank() != 0 and state != "failed"):
            return
        record = {"state": state, "code": code, "message": message, "command": self.command_line}
        for file in self.files:
            if used_by_another(file.parent):
                continue  # the record is that of the live run, which this command could not join
            if not file.parent.is_dir():
                continue  # a refused command leaves no half-made directory behind
            try:
                if code != EXIT_USER and state == "failed" and file.is_file() and read_json(file)["state"] == "failed":
                    continue  # another rank gave the reason; this one lost its connection, or waited for it
                write_json(file, record)
            except UserError as error:  # on a full disk the exit code matters more than the record
                if code in (EXIT_DONE, EXIT_PREEMPTED):  # any other end prints its own error
                    print(f"warning: {error}", file=sys.stderr, flush=True)


def claim_exit() -> None:
    """Called by a thread that is about to report why this process has to end, and then calls :func:`end_process`."""
    _exit_claimed.set()


def wait_for_watchdog() -> None:
    """Blocks for good where another thread has called :func:`claim_exit`, which will end this process.

    A rank that hangs makes the others lose their connections; the errors that follow must not be reported as the cause.
    """
    if _exit_claimed.is_set():
        threading.Event().wait()


def end_process(code: int, message: str) -> None:
    """Records a failure and ends this process at once, from any thread: nothing else in it runs on."""
    if ExitRecord.of_process is not None:
        ExitRecord.of_process.write("failed", code, message)
    os._exit(code)


def defer_to_rank_zero() -> None:
    """Gives rank 0 time to report the same error first.

    A launcher ends all ranks as soon as one has failed, whether or not the line that explains it is printed.
    """
    if rank() != 0:
        time.sleep(PATIENCE)


def leave(code: int) -> NoReturn:
    """Ends this process like a normal exit, but skips interpreter shutdown.

    A rank whose work is done must not fail then: a thread of gloo that frees its last tensor while the interpreter
    shuts down aborts the process ("terminate called without an active exception"; pytorch/pytorch#179291, #190489).
    Destroying the process group does not help, because models wrapped for training hold it.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def add_attempt(directory: Path, command: str, seconds: float) -> dict[str, Any]:
    """Adds one attempt to a stage's ``stage.json``: the command, and the seconds and number of all attempts so far."""
    file = directory / "stage.json"
    before = read_json(file) if file.is_file() else {"seconds": 0.0, "lives": 0}
    attempts = {"command": command, "seconds": before["seconds"] + seconds, "lives": before["lives"] + 1}
    write_json(file, attempts)
    return attempts
