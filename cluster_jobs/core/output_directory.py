"""Where a command writes: one command at a time, and only into what an equal command began."""

import contextlib
import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cluster_jobs.core import lock
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, remove

NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
LEFTOVER = re.compile(r"\..+\.\d+\.tmp")  # of `write_atomically`, where it was killed
LOCK_FILE = ".writing.lock"  # not `.lock`: that is a pipeline's, in its root
ATTEMPTS = 10
LONGEST = 300  # characters of one difference in a message

OnMain = Callable[[Callable[[], None]], None]


def run_here(work: Callable[[], None]) -> None:
    """What :meth:`Job.on_main` does, for a command of one process."""
    work()


def never() -> bool:
    """For an output that every command writes again."""
    return False


class Output(ABC):
    """What a command writes, to be held while it does: ``with output.locked(): …``. Use one of the two kinds below.

    Attributes:
        is_finished: whether an earlier command has finished this output, so that this one need not write.
        holds_lock: whether this process may write: inside ``locked``, on the main rank, but not where it only looks at
            an output that is finished.
    """

    def __init__(self, path: Path | str, finished: Callable[[], bool] = never) -> None:
        """
        Args:
            path: the value of ``out=``, as the user wrote it.
            finished: becomes ``is_finished``. Where it says True, an equal command has nothing left to write.
        """
        self.path = Path(path)
        self.name = f"out={str(path)!r}"
        self.is_finished = finished
        self.holds_lock = False

    @contextlib.contextmanager
    def locked(self, on_main: OnMain = run_here, part: str = "") -> Iterator[None]:
        """Keeps other commands from writing here, until the block ends or the process does.

        Where the output is finished, the block also runs without the lock, if another command holds that or this one
        has no right to write: it must look at ``holds_lock`` before it writes or removes a file.

        Args:
            on_main: :meth:`Job.on_main` where several processes, ranks, write together: the main one holds the lock.
            part: names the part of the output that this command writes. Commands with different parts may work at the
                same time, on different machines.

        Raises:
            UserError: another command writes here, or this one cannot.
        """
        held: list[Path] = []
        directory = self.lock_directory()
        new = not directory.is_dir()

        def take() -> None:
            if directory.exists() and not directory.is_dir():
                raise UserError(f"{self.name}: {str(directory)!r} is a file, expected a directory")
            try:
                self._take(part, held)
                self.holds_lock = True
            except lock.Refused:
                if not self.is_finished():
                    raise
            except OSError as error:
                if error.errno not in NO_RIGHT or not self.is_finished():
                    raise UserError(f"{self.name}: cannot write there ({error.strerror})") from error

        try:
            on_main(take)
            yield
        finally:
            self.holds_lock = False
            for file in reversed(held):
                lock.release(file)
            if held and new:
                with contextlib.suppress(OSError):
                    directory.rmdir()  # where it is empty: a command that was refused leaves nothing behind

    def _take(self, part: str, held: list[Path]) -> None:
        """Takes the locks of a part and adds those to ``held`` that this process did not have."""
        wait = not self.is_finished()
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                self.lock_directory().mkdir(parents=True, exist_ok=True)
                for file, shared in self._lock_files(part):
                    if lock.acquire(file, self.name, shared=shared, wait=wait):
                        held.append(file)
                return
            except (FileNotFoundError, FileExistsError):  # another command removed the directory, empty, at its end
                if not attempts_left:
                    raise

    @abstractmethod
    def lock_directory(self) -> Path:
        """The directory that holds the lock file."""

    @abstractmethod
    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        """The lock files of a command that writes a part, "" for all, and whether others may share each."""


class OutputDirectory(Output):
    """A directory that fills up while a command works and holds the lock file."""

    def lock_directory(self) -> Path:
        return self.path

    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        directory = self.path.resolve()
        whole = (directory / LOCK_FILE, bool(part))
        return [whole, (directory / f".{part}{LOCK_FILE}", False)] if part else [whole]

    def check(self, description: str, now: dict[str, Any], free: Collection[str] = ()) -> bool:
        """Whether an equal command has begun this directory; False where it is new.

        Args:
            description: the JSON file in the directory that says what decides the bytes of the others.
            now: what this command would write into it.
            free: fields that may differ: ``run``, ``sources.*.directory``.

        Raises:
            UserError: the directory holds something else, or was made with another configuration; names what differs.
        """
        file = self.path / description
        if not file.is_file():
            self.check_empty()
            return False
        refuse_changes(self.name, read_json(file), now, free)
        return True

    def check_empty(self) -> None:
        """Raises UserError where the directory holds a file, at any depth. Hidden ones do not count: commands that were
        killed before they described it leave some."""
        for _, folders, files in os.walk(self.path):
            if any(not name.startswith(".") for name in files):
                raise UserError(f"{self.name} holds something else; choose a new or empty directory")
            folders[:] = [name for name in folders if not name.startswith(".")]

    def remove_leftovers(self) -> None:
        """Removes the temporary files of commands that were killed, where this one holds the lock; of no part alone."""
        if self.holds_lock:
            remove_leftovers(self.path)
            remove_leftovers(self.path / "report")
            self.remove_part_locks()

    def remove_part_locks(self) -> None:
        """Removes the lock files of parts that no process holds: of commands that were killed."""
        for file in self.path.resolve().glob(f".?*{LOCK_FILE}"):
            with contextlib.suppress(lock.Refused, OSError):
                if lock.acquire(file, self.name, wait=False):
                    lock.release(file)


class OutputFile(Output):
    """A file, with others beside it that belong to it, or a directory, that appears whole by one rename.

    The lock file is next to it.
    """

    def lock_directory(self) -> Path:
        return self.path.parent

    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        assert not part
        return [(self.path.parent.resolve() / f".{self.path.name}.lock", False)]

    def temporary(self, suffix: str = "tmp") -> Path:
        """Its path while it is being made; always the same name, as there is one writer."""
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def commit(self, temporary: Path) -> None:
        """Renames the temporary file or directory to its own name; the content of a file is on the disk before.

        Raises:
            UserError: a directory of that name has got content meanwhile.
        """
        if temporary.is_file():
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
        try:
            temporary.replace(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UserError(f"{self.name} was filled with something else meanwhile; choose another out") from error


def remove_leftovers(directory: Path) -> None:
    """Removes the temporary files in a directory that commands which were killed left there."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if LEFTOVER.fullmatch(path.name):
            remove(path)


def refuse_changes(name: str, old: dict[str, Any], new: dict[str, Any], free: Collection[str] = ()) -> None:
    """Raises UserError where two descriptions of an output differ, and says in what.

    Args:
        name: the output and its key: ``out='POOL'``.
        free: names of fields that may differ, with dots into nested ones; ``*`` stands for any name.
    """
    changes = [f"{field}: {was!r} -> {now!r}"[:LONGEST] for field, was, now in _differences(old, new, free)]
    if changes:
        raise UserError(f"{name} was made with another configuration ({'; '.join(changes)}); choose another out")


def _differences(
    old: dict[str, Any], new: dict[str, Any], free: Collection[str], outer: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of the fields that differ, in order; one that is missing counts as null."""
    for field in sorted({*old, *new}):
        name, was, now = f"{outer}{field}", old.get(field), new.get(field)
        if any(fnmatchcase(name, pattern) for pattern in free):
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, free, f"{name}.")
        elif was != now:
            yield name, was, now
