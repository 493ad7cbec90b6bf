"""The engine of ``pack``: makes the shards of every split in parallel, and continues an unfinished directory.

Index files are written only after every shard of every split is complete and the number of files that are no pictures
is within ``allow_bad``, so no split looks finished before all are.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.output_directory import OutputDirectory, refuse_changes, remove_leftovers
from cluster_jobs.core.workers import cores, run_tasks
from cluster_jobs.data.shard_writer import PARTS, forget_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.packing.makers import Bad, Index, ShardMaker
from cluster_jobs.packing.sources import class_names

STATE = "pack.json"  # what is being packed, so that only the same command continues
BAD_FILES = "bad_files.json"
SHOWN = 20  # bad files named on the terminal; all of them are in BAD_FILES
ROWS = 40  # classes shown in the table

Makers = dict[str, ShardMaker]  # by split
BadByShard = dict[tuple[str, int], list[Bad]]  # by split and shard
ShardTask = tuple[str, int, frozenset[str]]  # split, shard, names to leave out


def pack(
    makers: Makers, out: Path, configuration: dict[str, Any], *, allow_bad: int, workers: int, console: Console
) -> None:
    """Makes every split, continues with what is missing, or prints that all is finished.

    Args:
        configuration: what decides the bytes of the shards; ``out`` is refused when it was begun with another one.

    Raises:
        UserError: ``out`` holds something else, or more than ``allow_bad`` files are no pictures.
    """
    output = OutputDirectory(out, finished=lambda: all(maker.finished() for maker in makers.values()))
    # reading every source file takes minutes; commands that find the same directory finished do it side by side
    early = read_state(makers, configuration) if output.is_finished() else None
    with output.locked():
        state = early or read_state(makers, configuration)
        _check_state(state, makers, output, console)
        if output.holds_lock:
            _remove_leftovers(makers, output)
        if output.is_finished():
            console.print(Text(f"{str(out)!r} is already finished"), soft_wrap=True)
        else:
            _pack(makers, out, state, allow_bad, workers, console)


def read_state(makers: Makers, configuration: dict[str, Any]) -> dict[str, Any]:
    """What decides the bytes of the shards: the command's configuration, and digests of the source as it is now."""
    return {
        "configuration": configuration,
        "digests": {split: maker.digest() for split, maker in makers.items()},
        "stamps": {split: [maker.stamp(number) for number in range(maker.shards())] for split, maker in makers.items()},
    }


def _pack(makers: Makers, out: Path, state: dict[str, Any], allow_bad: int, workers: int, console: Console) -> None:
    for maker in makers.values():
        _make_directory(maker.directory)
    write_json(out / STATE, state)
    tasks = [(s, n) for s, m in makers.items() if not m.finished() for n in range(m.shards()) if not m.done(n)]
    new_bad = _run(makers, [(*task, frozenset()) for task in tasks], workers, console)
    bad = _known_bad(out, set(tasks)) | new_bad
    _record_bad(out, bad)
    count = sum(map(len, bad.values()))
    if count > allow_bad:
        first = min(bad.items())[1][0]
        raise UserError(
            f"{count} file(s) are no readable pictures, the first {first['file']!r} ({first['reason']}); all are in "
            f"{str(out / BAD_FILES)!r}: repair or remove them, or leave them out with allow_bad={count}"
        )
    again = [(*shard, frozenset(file["file"] for file in files)) for shard, files in sorted(new_bad.items())]
    changed = _run(makers, again, workers, console)
    if changed:
        file = next(iter(changed.values()))[0]["file"]
        raise UserError(f"{file!r} changed while it was packed; run the command again")
    _finish(makers, bad)
    if count:
        console.print(f"left out {count} file(s) that are no pictures; {BAD_FILES} names them")


def _check_state(state: dict[str, Any], makers: Makers, output: OutputDirectory, console: Console) -> None:
    """Refuses a directory that holds something else, and a finished one whose source has changed since.

    Of an unfinished one whose source has changed, the shards concerned count as not done.
    """
    out = output.path
    if not (out / STATE).is_file():
        for maker in makers.values():
            if maker.finished():
                index = str(maker.directory / "index.json")
                raise UserError(f"{index!r} was not written by this command; its shards are ready as they are")
        in_place = any(isinstance(maker, Index) and maker.in_place() for maker in makers.values())
        if not in_place:
            output.check_empty()
        return
    old = read_json(out / STATE)
    before, now = old["configuration"], state["configuration"]
    refuse_changes(output.name, {name: before.get(name) for name in now}, now)
    finished = any(maker.finished() for maker in makers.values())
    if old["digests"] != state["digests"]:
        if finished:
            raise UserError(
                f"the images have changed since out={str(out)!r} was packed; choose another out or remove it"
            )
        for maker in makers.values():
            maker.discard()
        return
    changed = _changed_shards(old.get("stamps", state["stamps"]), state["stamps"])  # earlier versions stored none
    if changed and finished:
        split, number = changed[0]
        raise UserError(
            f"files have changed (size or time) since out={str(out)!r} was packed, those of {len(changed)} shard(s), "
            f"the first {number} of {split}; choose another out or remove it"
        )
    for split, number in changed:
        forget_shard(makers[split].directory, number)
    if changed:
        console.print(f"files of {len(changed)} shard(s) have changed (size or time); these are made again")


def _changed_shards(before: dict[str, list[str]], now: dict[str, list[str]]) -> list[tuple[str, int]]:
    """Split and number of the shards whose stamps differ; both are of the same shards."""
    return [
        (split, number)
        for split, stamps in now.items()
        for number, (old, new) in enumerate(zip(before[split], stamps, strict=True))
        if old != new
    ]


def _remove_leftovers(makers: Makers, output: OutputDirectory) -> None:
    """Removes the temporary files of an earlier command that was killed."""
    output.remove_leftovers()
    for maker in makers.values():
        remove_leftovers(maker.directory)
        if maker.finished():
            shutil.rmtree(maker.directory / PARTS, ignore_errors=True)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {str(path)!r}: {error.strerror}") from error


def _finish(makers: Makers, bad: BadByShard) -> None:
    indices = [maker for maker in makers.values() if isinstance(maker, Index)]
    if indices:  # the splits share one list of classes, known once every label has been read
        highest = max(int(labels.max(initial=-1)) for maker in indices for labels in maker.labels())
        for maker in indices:
            maker.classes = class_names(maker.classes, highest)
    for split, unfinished in makers.items():
        if not unfinished.finished():
            unfinished.finish(sum(len(files) for (other, _), files in bad.items() if other == split))


def _known_bad(out: Path, pending: set[tuple[str, int]]) -> BadByShard:
    """The bad files that an earlier command left out of finished shards; files of pending shards are read again."""
    path = out / BAD_FILES
    record = read_json(path) if path.is_file() else {}
    known = {(split, int(number)): files for split, shards in record.items() for number, files in shards.items()}
    return {shard: files for shard, files in known.items() if shard not in pending}


def _record_bad(out: Path, bad: BadByShard) -> None:
    record: dict[str, dict[str, list[Bad]]] = {}
    for (split, number), files in sorted(bad.items()):
        record.setdefault(split, {})[str(number)] = files
    if record:
        write_json(out / BAD_FILES, record)
    else:
        (out / BAD_FILES).unlink(missing_ok=True)


def _run(makers: Makers, tasks: list[ShardTask], workers: int, console: Console) -> BadByShard:
    """Makes the shards of the tasks with a progress bar; returns the bad files of shards that were not made."""
    bad: BadByShard = {}
    if not tasks:
        return bad
    named = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        unit = next(iter(makers.values())).unit
        bar = progress.add_task(unit, total=sum(makers[split].work(number) for split, number, _ in tasks))
        for (split, number, _), files in _results(makers, tasks, workers):
            progress.advance(bar, makers[split].work(number))
            for file in files[: max(SHOWN - named, 0)]:
                progress.console.print(Text(f"no picture: {file['file']!r} ({file['reason']})"), soft_wrap=True)
            named += len(files)
            if files:
                bad[split, number] = files
    return bad


class Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {task.description}/s")


def _results(makers: Makers, tasks: list[ShardTask], workers: int) -> Iterator[tuple[ShardTask, list[Bad]]]:
    """Runs the tasks in ``workers`` processes; 0: in this one; -1: one per core, or none for few tasks."""
    if workers < 0:
        workers = min(cores(), len(tasks) // 4)
    return run_tasks(_make, makers, tasks, min(workers, len(tasks)))


def _make(makers: Makers, task: ShardTask) -> list[Bad]:
    split, number, left_out = task
    return makers[split].make(number, left_out)


def print_table(console: Console, shards: dict[str, Shards]) -> None:
    """Prints the images of each class and split, then the size and fingerprint of each split."""
    table = Table("class", *shards)
    for column in table.columns[1:]:
        column.justify = "right"
    classes = next(iter(shards.values())).classes
    labels = {split: part.hidden_labels() for split, part in shards.items()}
    counts = np.array([np.bincount(column + 1, minlength=len(classes) + 1) for column in labels.values()]).T
    for name, row in list(zip(classes, counts[1:], strict=True))[:ROWS]:
        table.add_row(escape(name), *(f"{count:,}" for count in row))
    if len(classes) > ROWS:
        table.add_row(f"… {len(classes) - ROWS} more", *(f"{count:,}" for count in counts[1 + ROWS :].sum(0)))
    if counts[0].any():
        table.add_row("(unlabelled)", *(f"{count:,}" for count in counts[0]))
    table.add_section()
    table.add_row("images", *(f"{part.count:,}" for part in shards.values()))
    table.add_row("shards", *(f"{len(part.shard_names):,}" for part in shards.values()))
    table.add_row("bytes", *(f"{int(part.shard_bytes.sum()):,}" for part in shards.values()))
    table.add_row("size", *(f"{part.channels} × {part.height} × {part.width}" for part in shards.values()))
    table.add_row("fingerprint", *(part.fingerprint[:16] for part in shards.values()))
    console.print(table)
