"""torch.compile behind the key ``compile``: what it raises is one line for the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from cluster_jobs.core.errors import UserError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a failure to compile, which shows at the first forward or backward pass, into a UserError."""
    from torch._dynamo.exc import TorchDynamoException  # imports slowly, and only training needs it

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"compile=true: torch.compile failed ({reason}); compile=false trains without it") from error
