"""What the file system refuses becomes one line; what is nobody's fault but the program's stays a traceback."""

import errno
import os
import socket
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import disk_errors_as_user_errors, temporary_path
from cluster_jobs.core.output_directory import LEFTOVER


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


def test_processes_of_one_number_on_two_machines_have_different_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = []
    for host in ("node-1", "node-2.cluster"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        paths.append(temporary_path(Path("out", "000000.tar")))
    assert paths[0] != paths[1] and all(LEFTOVER.fullmatch(path.name) for path in paths)
