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


class Refused(UserError):
    """A lock that cannot be had: another process holds it, or its file is another user's."""


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


def acquire(path: Path, name: str, *, shared: bool = False, wait: bool = True) -> bool:
    """Takes the lock that is the file ``path``, making the file; False where this process held it before.

    Waits, and reports a file system without locks, as :func:`take` does.

    Args:
        name: what is locked, for the message of a refusal: ``out='POOL'``.
        shared: other processes may take it too, as long as all of them share it.
        wait: for a process that is about to end.

    Raises:
        Refused: another process holds it, or the file is another user's, who alone may open it.
        OSError: the file cannot be made or opened for another reason.
    """
    if path in _held:
        return False
    begin = time.monotonic()
    while True:
        # opened again at every attempt: whoever releases a lock may remove its file
        descriptor = _open(path, name)
        if _locked(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path) and _is_file(descriptor, path):
            break
        holder = _read(descriptor)
        os.close(descriptor)
        same_machine = holder.split(" ")[0] == socket.gethostname()
        if not wait or time.monotonic() - begin > (SAME_MACHINE_SECONDS if same_machine else OTHER_MACHINE_SECONDS):
            raise Refused(f"{name} is in use by {_in_words(holder)}")
        time.sleep(POLL_SECONDS)
    _held[path] = descriptor
    process = "" if shared else f" {os.getpid()}"  # one of those who share a lock may end before the others
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{socket.gethostname()}{process}\n".encode(), 0)
    with contextlib.suppress(OSError):  # without the name the lock works as well
        os.fsync(descriptor)  # ranks on other nodes read it
    return True


def release(path: Path) -> None:
    """Gives back a lock of :func:`acquire`. Its file goes too, unless others share the lock."""
    descriptor = _held.pop(path)
    if _locked(descriptor, fcntl.LOCK_EX):  # not so where another process shares it
        with contextlib.suppress(OSError):
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


def _open(path: Path, name: str) -> int:
    """The descriptor of a lock file, made where there is none; raises as :func:`acquire` does."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.is_file() or not os.access(path.parent, os.W_OK):
            raise
    # its owner's umask keeps others from writing it, who may replace it, though, and perhaps read it
    owner = f"{str(path)!r} belongs to user {_owner(path)}"
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        raise Refused(f"{name}: its lock file {owner}; remove it if no command of theirs is at work here") from None
    try:
        if not _locked(descriptor, fcntl.LOCK_SH):
            raise Refused(f"{name} is in use by {_in_words(_read(descriptor))}")
    finally:
        os.close(descriptor)
    raise Refused(f"{name}: its lock file {owner}, but no process holds the lock; remove the file")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):  # unknown on this machine, or just removed
        return "unknown"


def _locked(descriptor: int, kind: int, warn_of: Path | None = None) -> bool:
    """Whether no other process keeps this one from a lock, which it has from now on if there are locks here.

    Args:
        warn_of: the file to name in a warning that there are none.
    """
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (*TAKEN, errno.ESTALE):  # ESTALE: the file was removed on another node
            return False
        if warn_of:
            text = f"{warn_of}: no locks here ({error.strerror}); start no second command that writes to the same place"
            print(f"warning: {text}", file=sys.stderr, flush=True)
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
