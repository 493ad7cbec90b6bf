"""What the file system refuses becomes one line; what is nobody's fault but the program's stays a traceback."""

import errno
import os

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import disk_errors_as_user_errors


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "cannot write '/there': No space left on device"),
        (errno.EROFS, "cannot write '/there': Read-only file system"),
        (errno.EACCES, "cannot use '/there': Permission denied"),
        (errno.EPERM, "cannot use '/there': Operation not permitted"),
    ],
)
def test_a_refusal_of_the_file_system_is_told_with_the_file(code: int, text: str) -> None:
    with pytest.raises(UserError, match=text), disk_errors_as_user_errors():
        raise OSError(code, os.strerror(code), "/there")


def test_other_errors_of_the_operating_system_stay_what_they_are() -> None:
    with pytest.raises(ConnectionResetError), disk_errors_as_user_errors():
        raise ConnectionResetError(errno.ECONNRESET, "reset")
