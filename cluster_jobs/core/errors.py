"""How a command ends early: by what a user or a file caused (one clear line, exit code 2), or preempted (75)."""

STOP_FILE = "STOP"  # touched in a run directory, it asks the run to save and stop


class UserError(ValueError):
    """Names the offending value, what was expected and where the value came from."""


class DamagedSample(UserError):
    """A sample that cannot be read, named ``SHARD/KEY``. May be raised on one rank only."""


class UnreadableShard(UserError):
    """A shard that cannot be read: no sample is at fault, so none is replaced. May be raised on one rank only."""


class ToldByMain(UserError):
    """A UserError of the main rank, raised on the others too so that all end; the main rank reports it."""


class Preempted(Exception):
    """The run stopped on request with everything saved; exit code 75."""
