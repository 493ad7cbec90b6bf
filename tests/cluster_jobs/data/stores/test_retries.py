import errno
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, FlexibleChecksumError, NoCredentialsError
from s3fs.errors import translate_boto_error

from cluster_jobs.core.errors import UnreadableShard, UserError
from cluster_jobs.data.stores import retries
from cluster_jobs.data.stores.retries import ShortBody, attempt, is_temporary, status_of


def http_error(status: int) -> Exception:
    return aiohttp.ClientResponseError(SimpleNamespace(real_url="http://h/x?secret"), (), status=status)  # type: ignore[arg-type]


def s3_error(status: int, code: str = "") -> Exception:
    answer = {"Error": {"Code": code or str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(answer, "GetObject"))  # type: ignore[arg-type]


class Flaky:
    """Fails with each error in turn, then returns 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which is waited for."""
    made: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", made.append)
    return made


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        ShortBody("3 of 9 bytes came"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("ends early"),
        EndpointConnectionError(endpoint_url="http://h"),
        FlexibleChecksumError(error_msg="Expected checksum x did not match"),
        OSError(errno.EIO, "unknown"),
        *(make(status) for make in (http_error, s3_error) for status in (408, 429, 500, 502, 503, 504)),
        s3_error(503, "SlowDown"),
    ],
    ids=repr,
)
def test_what_is_temporary_is_tried_again(error: Exception, pauses: list[float]) -> None:
    action = Flaky(error, error)
    assert attempt(action, "x") == 7 and action.calls == 3 and len(pauses) == 2


@pytest.mark.parametrize(
    "error",
    [http_error(403), s3_error(403, "AccessDenied"), http_error(401), http_error(416), s3_error(416, "InvalidRange")]
    + [NoCredentialsError(), PermissionError(errno.EACCES, "no"), ValueError("bad url")],
    ids=repr,
)
def test_what_will_not_pass_is_one_line_at_once(error: Exception, pauses: list[float]) -> None:
    action = Flaky(error)
    with pytest.raises(UnreadableShard, match="^x: ") as raised:
        attempt(action, "x")
    assert action.calls == 1 and not pauses and "\n" not in str(raised.value) and "secret" not in str(raised.value)


@pytest.mark.parametrize("error", [FileNotFoundError("x"), http_error(404), s3_error(404, "NoSuchKey")], ids=repr)
def test_what_is_not_there_is_not_asked_for_again(error: Exception) -> None:
    action = Flaky(error)
    with pytest.raises(FileNotFoundError):
        attempt(action, "x")
    assert action.calls == 1


def test_a_missing_file_that_is_really_a_busy_server_is_tried_again() -> None:
    busy = FileNotFoundError("x")
    busy.__cause__ = http_error(503)
    assert attempt(Flaky(busy), "x") == 7


def test_it_gives_up_after_growing_pauses_and_says_what_was_tried(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries._random, "uniform", lambda low, high: high)
    action = Flaky(*[http_error(503)] * 99)
    with pytest.raises(UnreadableShard, match=r"^u: gave up after 8 tries in \d+ s; the last one: HTTP 503 Service Un"):
        attempt(action, "u")
    assert action.calls == 8 and pauses == [0.5, 1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize(("text", "calls"), [("1", 1), ("3", 3)])
def test_the_environment_says_how_often_to_try(text: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARD_TRIES", text)
    action = Flaky(*[TimeoutError()] * 99)
    with pytest.raises(UnreadableShard, match=f"after {calls} tries"):
        attempt(action, "x")
    assert action.calls == calls


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_tries_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARD_TRIES", text)
    with pytest.raises(UserError, match=f"SHARD_TRIES={text} in the environment: expected a positive number"):
        attempt(lambda: 1, "x")


def test_our_own_errors_pass_through() -> None:
    def refuse() -> None:
        raise UserError("ours")

    with pytest.raises(UserError, match="^ours$"):
        attempt(refuse, "x")


@pytest.mark.parametrize("make", [http_error, s3_error])
def test_the_status_is_found_behind_every_library(make: Callable[[int], Exception]) -> None:
    assert status_of(make(503)) == 503 and status_of(OSError(5, "x")) is None
    assert not is_temporary(make(403), 403)
