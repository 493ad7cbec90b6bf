"""The commands of Slurm that are used: submit, list, show, cancel and requeue a job; none goes through a shell."""

import getpass
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from cluster_jobs.core.errors import UserError

ENDED = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "UNKNOWN",
})  # fmt: skip


@dataclass(frozen=True)
class QueuedJob:
    """A job as squeue lists it."""

    state: str  # PENDING, RUNNING, COMPLETING, or one of ENDED
    reason: str  # why it waits, or why it ended
    restarts: int

    @property
    def active(self) -> bool:
        """Whether it is still to run, or running."""
        return self.state not in ENDED


def submit(words: Sequence[str]) -> str:
    """Runs an sbatch command and returns the job's id.

    Raises:
        UserError: with sbatch's own words.
    """
    return _ask(words).strip().partition(";")[0]  # ID, or ID;CLUSTER


def jobs() -> dict[str, QueuedJob]:
    """This user's jobs by id; an array is one job, active while one of its tasks is."""
    fields = "ArrayJobID:|,JobID:|,State:|,Reason:64|,RestartCnt:|"
    text = _ask(["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", f"--Format={fields}"])
    by_id: dict[str, QueuedJob] = {}
    for line in text.splitlines():
        array, number, state, reason, restarts, *_ = (field.strip() for field in line.split("|"))
        one = QueuedJob(state, reason if reason != "None" else "", int(restarts) if restarts.isdecimal() else 0)
        name = array if array.isdecimal() and array != "0" else number
        other = by_id.get(name)
        by_id[name] = other if other and other.active and not one.active else one
    return by_id


def state(job: str) -> str:
    """A job's state; UNKNOWN where the controller no longer knows the job."""
    try:
        description = _ask(["scontrol", "--oneliner", "show", "job", job])
    except UserError:
        return "UNKNOWN"
    return next((word.partition("=")[2] for word in description.split() if word.startswith("JobState=")), "UNKNOWN")


def cancel(numbers: Sequence[str]) -> None:
    """Cancels jobs; those that ended meanwhile are no error."""
    if numbers:
        _ask(["scancel", "--quiet", *numbers])


def requeue(job: str) -> None:
    """Puts a running job back into the queue, which ends its present attempt."""
    _ask(["scontrol", "requeue", job])


def _ask(words: Sequence[str]) -> str:
    try:
        answer = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UserError(f"{words[0]}: no such command: expected Slurm on this machine, for cluster=slurm") from None
    if answer.returncode != 0:
        reason = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        raise UserError(f"{words[0]} refused: {reason}")
    return answer.stdout
