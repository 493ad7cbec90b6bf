"""File locks that last as long as their process: one live run in a run directory, one command that writes an output.

A run takes its lock itself; `output_directory.py` holds the one of an output.

They are POSIX record locks. Such a lock belongs to one process, so that no forked reader process keeps it alive, and
NFS and most parallel file systems hold it between machines.
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

LOCK_FILE = "lock"  # of a run directory: "HOST PID" of the process that holds it, or held it last
POLL_SECONDS = 0.2
SAME_MACHINE_SECONDS = 2.0  # a process that was just killed is gone by then
OTHER_MACHINE_SECONDS = 120.0  # a file server frees the locks of a dead machine when its lease ends (NFSv4: 90 s)
TAKEN = (errno.EACCES, errno.EAGAIN)

_held: dict[Path, int] = {}  # descriptors: closing any other one of a lock file would free this process's lock
_joined: dict[Path, str] = {}  # who held the lock when this process, another rank, joined its run


def take(directory: Path) -> None:
    """Takes the lock of a run directory until this process ends.

    Where another process holds it, waits a moment for one that is about to end. A file system without locks is
    reported, and the run continues without one.

    Raises:
        UserError: another live run uses the directory, or it cannot be written to.
    """
    name = f"run.dir={str(directory)!r}"
    try:
        acquire(_path(directory), name)
    except OSError as error:
        raise UserError(f"{name}: cannot write in it ({error.strerror})") from error


def acquire(path: Path, name: str, *, shared: bool = False) -> bool:
    """Takes the lock that is the file ``path``, making the file; False where this process held it before.

    Waits, and reports a file system without locks, as :func:`take` does.

    Args:
        name: what is locked, for the message of a refusal: ``out='POOL'``.
        shared: other processes may take it too, as long as all of them share it.

    Raises:
        UserError: another process holds it.
        OSError: the file cannot be opened for writing.
    """
    if path in _held:
        return False
    begin = time.monotonic()
    while True:
        # opened again at every attempt: whoever releases a lock may remove its file
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _locked(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) and _is_file(descriptor, path):
            break
        holder = _read(descriptor)
        os.close(descriptor)
        same_machine = holder.startswith(f"{socket.gethostname()} ")
        if time.monotonic() - begin > (SAME_MACHINE_SECONDS if same_machine else OTHER_MACHINE_SECONDS):
            raise UserError(f"{name} is in use by {_in_words(holder)}")
        time.sleep(POLL_SECONDS)
    _held[path] = descriptor
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
    with contextlib.suppress(OSError):  # without the name the lock works as well
        os.fsync(descriptor)  # ranks on other nodes read it
    return True


def release(path: Path) -> None:
    """Gives back a lock of :func:`acquire`. Its file goes too, unless others share the lock."""
    descriptor = _held.pop(path)
    with contextlib.suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where another process shares it
        path.unlink()
    os.close(descriptor)


def join(directory: Path) -> None:
    """Notes that this process is a rank of the run whose main process holds the lock; called once that holds it."""
    path = _path(directory)
    if path in _held:
        return
    with contextlib.suppress(OSError):
        _joined[path] = path.read_text(errors="replace").strip()


def used_by_another(directory: Path) -> bool:
    """Whether a live process holds the lock of a run directory that this process is no rank of."""
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


def _locked(descriptor: int, path: Path, kind: int) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (*TAKEN, errno.ESTALE):  # ESTALE: the file was removed on another node
            return False
        print(f"warning: {path}: no locks here ({error.strerror}); start no second run", file=sys.stderr, flush=True)
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``: a lock on a removed file excludes nobody."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 1024, 0).decode(errors="replace").strip()
    except OSError:  # removed on another node
        return ""


def _in_words(holder: str) -> str:
    host, _, pid = holder.rpartition(" ")
    return f"process {pid} on {host}" if host else "another process"
