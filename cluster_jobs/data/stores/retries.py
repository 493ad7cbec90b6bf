"""Retries of network requests after temporary errors, with growing pauses, and one line for what failed for good."""

import os
import random
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TypeVar

from cluster_jobs.core.errors import UnreadableShard, UserError

TRIES = 8  # about a minute of pauses
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; each is twice the one before
TEMPORARY = frozenset((408, 425, 429))  # of the client errors; every server error may be temporary
TEMPORARY_ERRORS = frozenset(  # by package and name, as none of the packages need be installed
    (
        ("aiohttp", "ClientError"),
        ("botocore", "HTTPClientError"),
        ("botocore", "ConnectionError"),
        ("botocore", "IncompleteReadError"),
        ("botocore", "FlexibleChecksumError"),  # raised for a short body
        ("requests", "RequestException"),
        ("httpx", "TransportError"),
        ("httpx2", "TransportError"),
    )
)
Result = TypeVar("Result")
_random = random.SystemRandom()  # pauses must not touch any seeded generator


class ShortBody(OSError):
    """A body that ended before the bytes that were asked for."""


def attempt(action: Callable[[], Result], what: str) -> Result:
    """The result of ``action``, which is tried again after temporary errors: resets, time-outs, 429, 5xx, short bodies.

    ``SHARD_TRIES`` in the environment says how often in all.

    Raises:
        FileNotFoundError: there is nothing of this name, so no retry would help.
        UnreadableShard: it was refused, or every try failed; one line with ``what``, how often, and the last reason.
    """
    tries, begun = allowed_tries(), time.monotonic()
    for number in range(1, tries + 1):
        try:
            return action()
        except UserError:
            raise
        except Exception as raised:
            error = raised
            if isinstance(raised, FileNotFoundError) and isinstance(raised.__cause__, Exception):
                error = raised.__cause__  # fsspec raises it for every error when it asks a web server for a file's size
            status, reason = status_of(error), explain(error)
            if status == HTTPStatus.NOT_FOUND or status is None and isinstance(error, FileNotFoundError):
                raise FileNotFoundError(what) from error
            if not is_temporary(error, status):
                raise UnreadableShard(f"{what}: {reason}") from error
            if number == tries:
                seconds = time.monotonic() - begun
                message = f"{what}: gave up after {tries} tries in {seconds:.0f} s; the last one: {reason}"
                raise UnreadableShard(message) from error
        pause = min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
        time.sleep(pause * _random.uniform(0.5, 1))  # so that a thousand readers do not retry at the same moment
    raise AssertionError("unreachable")


def allowed_tries() -> int:
    """The number of tries in all. Raises UserError where ``SHARD_TRIES`` is no positive number."""
    text = os.environ.get("SHARD_TRIES", str(TRIES))
    if not (text.isdecimal() and int(text) > 0):
        raise UserError(f"SHARD_TRIES={text} in the environment: expected a positive number of tries")
    return int(text)


def is_temporary(error: Exception, status: int | None) -> bool:
    """Whether the same request may succeed later."""
    if status is not None:
        return status in TEMPORARY or status >= 500
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    temporary = isinstance(error, OSError | TimeoutError | EOFError) or bool(names & TEMPORARY_ERRORS)
    return temporary and not isinstance(error, PermissionError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of any of the file systems, None where the server never answered."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(response, "status_code", None) or getattr(cause, "status", None)
            if type(cause).__module__.startswith("gcsfs"):
                status = getattr(cause, "code", None)
        if str(status).isdecimal() and 400 <= int(str(status)) < 600:
            return int(str(status))
    return None


def explain(error: BaseException) -> str:
    """What went wrong, in one line."""
    status = status_of(error)
    if status is not None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return f"HTTP {status} {phrase}".rstrip()
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
