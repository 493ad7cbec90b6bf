"""One live run in a run directory: a lock that its main process holds until it ends, however it ends.

It is a POSIX record lock. Such a lock belongs to one process, so that no forked reader process keeps it alive, and NFS
and most parallel file systems hold it between machines.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from pathlib import Path

from cluster_jobs.core.errors import UserError

LOCK_FILE = "lock"  # "HOST PID" of who holds it, or of who held it last
POLL_SECONDS = 0.2
SAME_MACHINE_SECONDS = 2.0  # a process that was just killed is gone by then
OTHER_MACHINE_SECONDS = 120.0  # a file server frees the locks of a dead machine when its lease ends (NFSv4: 90 s)
TAKEN = (errno.EACCES, errno.EAGAIN)

_held: set[Path] = set()  # closing any descriptor of a lock file would free this process's lock: it is opened once
_joined: dict[Path, str] = {}  # who held the lock when this process, another rank, joined its run


def take(directory: Path) -> None:
    """Takes the lock of a run directory for the life of this process.

    Where another process holds it, waits a moment for one that is about to end. A file system that has no locks is
    reported, and the run goes on without one.

    Raises:
        UserError: another live run uses the directory, or it cannot be written to.
    """
    path = _path(directory)
    if path in _held:
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"run.dir={str(directory)!r}: cannot write in it ({error.strerror})") from error
    begin = time.monotonic()
    while not _locked(descriptor, path):
        holder = _read(descriptor)
        same_machine = holder.startswith(f"{socket.gethostname()} ")
        if time.monotonic() - begin > (SAME_MACHINE_SECONDS if same_machine else OTHER_MACHINE_SECONDS):
            os.close(descriptor)
            raise UserError(f"run.dir={str(directory)!r} is in use by {_in_words(holder)}")
        time.sleep(POLL_SECONDS)
    _held.add(path)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
    with contextlib.suppress(OSError):  # a name that does not arrive does no harm
        os.fsync(descriptor)  # ranks on other nodes read it


def join(directory: Path) -> None:
    """Makes this process one of the run whose main process holds the lock; every rank calls it once that one does."""
    path = _path(directory)
    if path in _held:
        return
    with contextlib.suppress(OSError):
        _joined[path] = path.read_text(errors="replace").strip()


def used_by_another(directory: Path) -> bool:
    """Whether a live process holds the lock of a run directory that this process has no part in."""
    path = _path(directory)
    if path in _held:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # no run was ever here, or none can be
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: ranks that look at once do not see each other
        return False
    except OSError as error:
        return error.errno in TAKEN and _read(descriptor) != _joined.get(path)
    finally:
        os.close(descriptor)


def _path(directory: Path) -> Path:
    return directory.resolve() / LOCK_FILE


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        print(f"warning: {path}: no locks here ({error.strerror}); start no second run", file=sys.stderr, flush=True)
    return True


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 1024, 0).decode(errors="replace").strip()


def _in_words(holder: str) -> str:
    host, _, pid = holder.rpartition(" ")
    return f"process {pid} on {host}" if host else "another process"
