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
LONGEST = 300  # characters of one difference in a message

OnMain = Callable[[Callable[[], None]], None]


def run_here(work: Callable[[], None]) -> None:
    """What :meth:`Job.on_main` does, for a command of one process."""
    work()


class Output(ABC):
    """What a command writes, to be held while it does: ``with output.locked(): …``. Use one of the two kinds below."""

    def __init__(self, path: Path | str, option: str = "out") -> None:
        """
        Args:
            path: as the user wrote it.
            option: the configuration key whose value it is, for messages.
        """
        self.path = Path(path)
        self.name = f"{option}={str(path)!r}"
        self.option = option

    @contextlib.contextmanager
    def locked(self, on_main: OnMain = run_here, part: str = "") -> Iterator[None]:
        """Keeps other commands from writing here, until the block ends or the process does.

        Args:
            on_main: :meth:`Job.on_main` where several processes, ranks, write together: the main one holds the lock.
            part: names the part of the output that this command writes. Commands with different parts may work at the
                same time, on different machines.

        Raises:
            UserError: another command writes here, or this one cannot.
        """
        held: list[Path] = []
        place = self.lock_place()
        new = not place.is_dir()

        def take() -> None:
            if place.exists() and not place.is_dir():
                raise UserError(f"{self.name}: {str(place)!r} is a file, expected a directory")
            try:
                place.mkdir(parents=True, exist_ok=True)
                for file, shared in self._lock_files(part):
                    if lock.acquire(file, self.name, shared=shared):
                        held.append(file)
            except OSError as error:
                if error.errno not in NO_RIGHT or not self.is_finished():  # what is finished is only looked at
                    raise UserError(f"{self.name}: cannot write there ({error.strerror})") from error

        try:
            on_main(take)
            yield
        finally:
            for file in reversed(held):
                lock.release(file)
            if held and new:
                with contextlib.suppress(OSError):
                    place.rmdir()  # where it is empty: a command that was refused leaves nothing behind

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether an earlier command has finished this output."""

    @abstractmethod
    def lock_place(self) -> Path:
        """The directory that holds the lock file."""

    @abstractmethod
    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        """The lock files of a command that writes a part, "" for all, and whether others may share each."""


class OutputDirectory(Output):
    """A directory that fills up while a command works and holds the lock file. Its ``last`` file makes it finished."""

    def __init__(self, path: Path | str, option: str = "out", last: str = "index.json") -> None:
        super().__init__(path, option)
        self.last = last

    def is_finished(self) -> bool:
        return (self.path / self.last).is_file()

    def lock_place(self) -> Path:
        return self.path

    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        directory = self.path.resolve()
        whole = (directory / ".lock", bool(part))
        return [whole, (directory / f".{part}.lock", False)] if part else [whole]

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
        refuse_changes(self.name, self.option, read_json(file), now, free)
        return True

    def check_empty(self) -> None:
        """Raises UserError where the directory holds a file, at any depth. Hidden ones do not count: commands that were
        killed before they described it leave some."""
        for _, folders, files in os.walk(self.path):
            if any(not name.startswith(".") for name in files):
                raise UserError(f"{self.name} holds something else; choose a new or empty directory")
            folders[:] = [name for name in folders if not name.startswith(".")]

    def remove_leftovers(self) -> None:
        """Removes the temporary files of commands that were killed; to be called by one that holds all of it."""
        for folder in (self.path, self.path / "report"):
            for path in folder.iterdir() if folder.is_dir() else ():
                if LEFTOVER.fullmatch(path.name):
                    remove(path)


class OutputFile(Output):
    """A file, with others beside it that belong to it, or a directory, that appears whole by one rename.

    The lock file is next to it.
    """

    def is_finished(self) -> bool:
        return self.path.exists()

    def lock_place(self) -> Path:
        return self.path.parent

    def _lock_files(self, part: str) -> list[tuple[Path, bool]]:
        assert not part
        return [(self.path.parent.resolve() / f".{self.path.name}.lock", False)]

    def temporary(self, suffix: str = "tmp") -> Path:
        """Its path while it is being made; always the same name, as there is one writer."""
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def commit(self, temporary: Path) -> None:
        """Renames the temporary file or directory to its own name; the content of a file is on the disk before."""
        if temporary.is_file():
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
        temporary.replace(self.path)


def refuse_changes(
    name: str, option: str, old: dict[str, Any], new: dict[str, Any], free: Collection[str] = ()
) -> None:
    """Raises UserError where two descriptions of an output differ, and says in what.

    Args:
        name: the output and its key: ``out='POOL'``.
        option: the key alone.
        free: names of fields that may differ, with dots into nested ones; ``*`` stands for any name.
    """
    changes = [f"{field}: {was!r} -> {now!r}"[:LONGEST] for field, was, now in _differences(old, new, free)]
    if changes:
        raise UserError(f"{name} was made with another configuration ({'; '.join(changes)}); choose another {option}")


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
