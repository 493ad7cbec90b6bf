"""The errors that end a command early: caused by a user or a file (one line, exit code 2), or preempted (75).

`cluster_jobs/cli/exit_record.py` has all exit codes.
"""

STOP_FILE = "STOP"  # a file of this name in a run directory asks the run to save and stop


class UserError(ValueError):
    """Names the offending value, what was expected and where the value came from."""


class DamagedSample(UserError):
    """A sample that cannot be read, named ``SHARD/KEY``. May be raised on one rank only."""


class UnreadableShard(UserError):
    """A shard that cannot be read, so that no sample of it can be replaced. May be raised on one rank only."""


class ReportedByMainRank(UserError):
    """A UserError of the main rank, raised on the others too so that all end; the main rank reports it."""


class Preempted(Exception):
    """The run stopped on request with everything saved; exit code 75."""
