"""The errors that a user or a file can cause: one clear line and exit code 2 instead of a traceback."""


class UserError(ValueError):
    """Names the offending value, what was expected and where the value came from."""


class DamagedSample(UserError):
    """A sample that cannot be read, named ``SHARD/KEY``. May be raised on one rank only."""
