"""What a command writes belongs to one command at a time, and to the configuration that began it."""

import errno
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs.core import lock
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.output_directory import LOCK_FILE, OutputDirectory, OutputFile, refuse_changes
from tests.held import held
from tests.killed import kill_at

MADE = {"seed": 0, "source": {"digest": "a", "directory": "/old"}, "filter": None}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.0)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- one writer


def test_a_second_process_is_refused_in_one_line_and_let_in_once_the_first_is_done(tmp_path: Path) -> None:
    output = OutputDirectory(tmp_path / "pool")
    with held(output.path) as process, pytest.raises(UserError) as refusal, output.locked():
        pass
    assert str(refusal.value) == (f"out={str(output.path)!r} is in use by process {process} on {socket.gethostname()}")
    with output.locked():
        assert names(output.path) == [".writing.lock"]
    assert not output.path.exists()  # it was made for nothing


def test_a_killed_writer_locks_out_nobody_and_its_lock_file_goes_with_the_next_one(tmp_path: Path) -> None:
    with held(tmp_path / "pool") as process:
        (tmp_path / "pool" / "000000.tar").write_bytes(b"a shard")
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert names(tmp_path / "pool") == [".writing.lock", "000000.tar"]
        with OutputDirectory(tmp_path / "pool").locked():
            pass
    assert names(tmp_path / "pool") == ["000000.tar"]


def test_a_file_has_its_lock_beside_it_and_leaves_nothing_there(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "new" / "table.npy")
    with held(output.path, file=True), pytest.raises(UserError, match="in use by process"), output.locked():
        pass
    with held(tmp_path / "new" / "another.npy", file=True), output.locked():
        output.temporary().write_bytes(b"rows")
        output.commit(output.temporary())
    assert names(tmp_path / "new") == ["table.npy"] and output.path.read_bytes() == b"rows"


def test_parts_are_written_side_by_side_but_none_twice_and_nobody_writes_the_whole_meanwhile(tmp_path: Path) -> None:
    output = OutputDirectory(tmp_path)
    with held(tmp_path, part="part-0-of-2"):
        with output.locked(part="part-1-of-2"):
            pass
        with pytest.raises(UserError, match="in use by process"), output.locked(part="part-0-of-2"):
            pass
        with pytest.raises(UserError, match="in use by another process$"), output.locked():
            pass  # who shares the lock is not known: the process that took it last may have ended
    with held(tmp_path), pytest.raises(UserError, match="in use by process"), output.locked(part="part-1-of-2"):
        pass
    with output.locked():
        pass
    assert names(tmp_path) == []


def test_a_lock_file_that_its_owner_removed_meanwhile_locks_out_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers wait with the same file open; the first one that gets it removes it at its end."""
    file, opened = tmp_path / ".writing.lock", os.open

    def open_and_lose(path: Any, *arguments: Any) -> int:
        descriptor = opened(path, *arguments)
        if len(removed) < 2:
            removed.append(file.unlink())
        return descriptor

    removed: list[None] = []
    monkeypatch.setattr(lock.os, "open", open_and_lose)
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 60.0)
    monkeypatch.setattr(lock, "OTHER_MACHINE_SECONDS", 60.0)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.0)
    lock.acquire(file, "out")
    assert len(removed) == 2 and file.stat().st_ino == os.fstat(lock._held[file]).st_ino
    lock.release(file)


def test_of_several_ranks_the_main_one_holds_the_lock_and_its_refusal_is_told(tmp_path: Path) -> None:
    with OutputDirectory(tmp_path).locked(lambda work: None):  # another rank: the work is not its own
        assert names(tmp_path) == []
    with OutputDirectory(tmp_path).locked(lambda work: work()):
        assert names(tmp_path) == [".writing.lock"]


# --- a place that cannot be written to


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode bit keeps out."""

    def refuse(*arguments: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(lock.os, "open", refuse)


def test_a_place_without_the_right_to_write_is_one_line_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only(monkeypatch)
    for output in (OutputDirectory(tmp_path / "pool"), OutputFile(tmp_path / "table.npy")):
        with pytest.raises(UserError) as refusal, output.locked():
            pass
        assert str(refusal.value) == f"{output.name}: cannot write there (Permission denied)"


def test_what_is_finished_in_such_a_place_can_still_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".pool.json.host.17.tmp").write_bytes(b"")
    read_only(monkeypatch)
    output = OutputDirectory(tmp_path, finished=lambda: True)
    with output.locked():
        assert not output.holds_lock
        output.remove_leftovers()
    assert names(tmp_path) == [".pool.json.host.17.tmp"]


def test_what_is_finished_is_looked_at_without_waiting_while_another_process_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 60.0)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: pytest.fail("it waited"))
    for output in (OutputDirectory(tmp_path / "pool", lambda: True), OutputFile(tmp_path / "table", lambda: True)):
        with held(output.path, file=isinstance(output, OutputFile)), output.locked():
            assert not output.holds_lock
        with output.locked():
            assert output.holds_lock
        assert not output.holds_lock


def test_what_another_process_finishes_while_one_waits_for_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.1)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: (tmp_path / "index.json").touch())
    output = OutputDirectory(tmp_path, finished=(tmp_path / "index.json").is_file)
    with held(tmp_path), output.locked():
        assert output.is_finished() and not output.holds_lock


def test_the_lock_file_of_another_user_is_named_with_its_owner_where_nobody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays where their command was killed, and their umask may let nobody else open it for writing."""
    output, opened, refused = OutputDirectory(tmp_path), os.open, [os.O_RDWR]

    def refuse(path: Any, flags: int, *arguments: Any) -> int:
        if flags & os.O_ACCMODE in refused:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *arguments)

    def refusal() -> str:
        with pytest.raises(UserError) as found, output.locked():
            pass
        return str(found.value)

    with held(tmp_path) as process:
        file = tmp_path / ".writing.lock"
        content = file.read_text()
        monkeypatch.setattr(lock.os, "open", refuse)
        assert refusal() == f"{output.name} is in use by process {process} on {socket.gethostname()}"
    file.write_text(content)
    whose = f"{output.name}: its lock file {str(file)!r} belongs to user {file.owner()}"
    assert refusal() == f"{whose}, but no process holds the lock; remove the file"
    refused.append(os.O_RDONLY)
    assert refusal() == f"{whose}; remove it if no command of theirs is at work here"
    monkeypatch.setattr(lock.os, "access", lambda path, mode: False)
    assert refusal() == f"{output.name}: cannot write there (Permission denied)"


def test_a_file_system_without_locks_is_reported_and_no_lock_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)
    with OutputDirectory(tmp_path / "pool").locked(), OutputFile(tmp_path / "new" / "table.npy").locked():
        (tmp_path / "pool" / "000000.tar").touch()
    assert names(tmp_path) == ["pool"] and names(tmp_path / "pool") == ["000000.tar"]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and all("start no second command that writes to the same place" in w for w in warnings)


@pytest.mark.parametrize("moment", ["before its lock file is opened", "while it is made"])
def test_a_new_directory_that_its_first_writer_removes_again_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    output, opened, made, removed = OutputFile(tmp_path / "new" / "table.npy"), os.open, Path.mkdir, []

    def open_too_late(path: Any, *arguments: Any) -> int:
        if not removed:
            removed.append(output.path.parent.rmdir())
        return opened(path, *arguments)

    def make_too_early(path: Path, *arguments: Any, **named: Any) -> None:
        if not removed:
            removed.append(None)
            raise FileExistsError(errno.EEXIST, "File exists")  # it was there, and then was no directory
        made(path, *arguments, **named)

    if moment == "while it is made":
        monkeypatch.setattr(Path, "mkdir", make_too_early)
    else:
        monkeypatch.setattr(lock.os, "open", open_too_late)
    with output.locked():
        assert removed and names(tmp_path / "new") == [".table.npy.lock"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("!")
    for output, message in (
        (OutputDirectory(tmp_path / "mine"), "is a file, expected a directory"),
        (OutputDirectory(tmp_path / "mine" / "pool"), "cannot write there"),
    ):
        with pytest.raises(UserError, match=message), output.locked():
            pass


# --- one configuration


def test_an_equal_description_goes_on_and_a_field_that_is_free_may_differ(tmp_path: Path) -> None:
    output = OutputDirectory(tmp_path)
    assert not output.check("pool.json", MADE)
    write_json(tmp_path / "pool.json", MADE)
    assert output.check("pool.json", MADE)
    moved = MADE | {"source": {"digest": "a", "directory": "/new"}, "versions": {"torch": "2"}}
    assert output.check("pool.json", moved, free=["source.directory", "versions"])
    assert output.check("pool.json", moved, free=["*.directory", "versions"])


def test_another_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    write_json(tmp_path / "pool.json", MADE | {"gone": 1})
    now = {"seed": 1, "source": {"digest": "b", "directory": "/new"}, "filter": {"keep": 0.5}}
    with pytest.raises(UserError) as refusal:
        OutputDirectory(tmp_path).check("pool.json", now, free=["source.directory"])
    assert str(refusal.value) == (
        f"out={str(tmp_path)!r} was made with another configuration (filter: None -> {{'keep': 0.5}}; gone: 1 -> None; "
        "seed: 0 -> 1; source.digest: 'a' -> 'b'); choose another out"
    )


def test_long_values_do_not_fill_the_screen() -> None:
    with pytest.raises(UserError) as refusal:
        refuse_changes("out='x'", {"names": ["a"] * 1000}, {"names": ["b"] * 1000})
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("foreign", ["precious.txt", "000000.tar", "train/000000.tar", "sub/sub/file"])
def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("!")
    with pytest.raises(UserError, match="holds something else; choose a new or empty directory"):
        OutputDirectory(tmp_path).check("pool.json", MADE)


# --- a kill between a temporary file and its name


def killed_while_it_wrote(directory: Path, pattern: str, content: bytes) -> None:
    """Forks a writer that is killed just before it gives its file its name."""
    process = os.fork()
    if process == 0:
        kill_at(pattern, 1)
        with OutputDirectory(directory).locked():
            write_json(directory / "pool.json", {"content": content.decode()})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def test_what_a_kill_left_between_a_temporary_file_and_its_name_is_no_hindrance_and_goes(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    killed_while_it_wrote(directory, f"{directory}/pool.json", b"half")
    assert len(names(directory)) == 2 and names(directory)[0].endswith(".tmp")
    (directory / "report").mkdir()
    (directory / "report" / ".pool.png.17.tmp").write_bytes(b"")
    (directory / ".mine.tmp").write_bytes(b"no name of ours")
    output = OutputDirectory(directory)
    with output.locked():
        assert not output.check("pool.json", MADE)
        output.remove_leftovers()
    assert names(directory) == [".mine.tmp", "report"] and names(directory / "report") == []


def test_a_file_that_was_not_committed_is_not_there(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "table.npy")
    process = os.fork()
    if process == 0:
        kill_at(f"{output.path}", 1)
        with output.locked():
            output.temporary().write_bytes(b"all rows")
            output.commit(output.temporary())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert names(tmp_path) == [".table.npy.lock", ".table.npy.tmp"]
    with output.locked():
        output.temporary().write_bytes(b"rows")
        output.commit(output.temporary())
    assert names(tmp_path) == ["table.npy"] and output.path.read_bytes() == b"rows"


def test_the_lock_file_of_a_killed_part_goes_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f".part-1-of-2{LOCK_FILE}").touch()  # of a command that was killed
    with held(out, part="part-0-of-3"), OutputDirectory(out).locked(part="part-1-of-3"):
        OutputDirectory(out).remove_part_locks()
        assert {path.name for path in out.iterdir()} == {
            LOCK_FILE,
            f".part-0-of-3{LOCK_FILE}",
            f".part-1-of-3{LOCK_FILE}",
        }


def test_a_directory_that_got_content_while_another_was_made_is_one_line(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out")
    output.temporary().mkdir()
    (tmp_path / "out").mkdir()
    output.path.joinpath("other").touch()
    with pytest.raises(UserError, match="out=.*was filled with something else meanwhile"):
        output.commit(output.temporary())
