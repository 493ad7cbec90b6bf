"""Checks shards against their index: ``python -m cluster_jobs.verify data=DIR``.

``verification/checker.py`` says what is checked.
"""

import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_parts
from cluster_jobs.core.progress import track
from cluster_jobs.core.workers import cores, run_tasks
from cluster_jobs.verification.checker import Damage, Shard, ShardDirectory, check
from cluster_jobs.verification.dataset import Data, damaged, open_data, report, totals
from cluster_jobs.verification.journal import Journal, Stamp, stamp

SMALL = 64 << 20  # bytes of shards that are checked before worker processes would have started
SHOWN = 20  # findings named on the terminal; all of them are in the list

Task = tuple[str, Shard, Stamp | None]  # split, shard, its stamp before the check


@dataclass
class VerifyConfig:
    """Checks every shard against the index and lists what is damaged; changes no shard. Exit code 2: damage was found.

    Running the command again resumes a check that was killed, or checks what has changed since (by size and time of
    change).
    """

    data: str = option(MISSING, "a directory of shards, or one that holds train/ and test/", path=True)
    out: str = option("", "JSON file for the list of what is damaged; DATA/verify.json unless given", path=True)
    workers: int = option(-1, "processes; 0 works in this one, -1 takes one a core")
    fresh: bool = option(False, "check unchanged shards again, too")
    validate: bool = option(False, "check and print the configuration, then exit")


@command(VerifyConfig, single_process=True)
def main(config: VerifyConfig) -> None:
    if not -1 <= config.workers <= 1024:
        raise UserError(f"workers={config.workers}: expected -1 to 1024")
    if config.validate:
        return
    data = open_data(Path(config.data))
    out = Path(config.out) if config.out else Path(config.data) / "verify.json"
    journal = Journal(out.with_name(f"{out.name}.state"), data.identity(), fresh=config.fresh)
    tasks = [(name, shard, stamp(data.path(name, shard))) for name, shard in data]
    pending = [task for task in tasks if not journal.verified((task[0], task[1].number), task[2])]
    if len(pending) < len(tasks):
        unchanged = f"{len(tasks) - len(pending):,} of {len(tasks):,} shards"
        print(f"{unchanged} were verified before and have not changed (fresh=true checks them again)", flush=True)
    workers = config.workers if config.workers >= 0 else _processes(pending)
    checked = run_tasks(_check, data.splits, pending, min(workers, len(pending)))
    for (name, shard, mark), damage in track(checked, len(pending), "shards", "verify", 1):
        journal.add((name, shard.number), mark, damage)
    write_parts(out, report(config.data, data, journal))
    _conclude(data, journal, out)


def _processes(tasks: list[Task]) -> int:
    """One per core, or none where starting them would take longer than the work."""
    return cores() if sum(shard.bytes for _, shard, _ in tasks) > SMALL else 0


def _check(splits: dict[str, ShardDirectory], task: Task) -> list[Damage]:
    name, shard, _ = task
    return check(splits[name], shard)


def _conclude(data: Data, journal: Journal, out: Path) -> None:
    """Prints that all shards are sound, or raises UserError naming the first damage."""
    samples, shards = totals(data, journal)
    if not samples + shards:
        images, files = data.size()
        print(f"sound: {images:,} images in {files:,} shards, as {str(out)!r} says")
        return
    lines = [
        f"{data.splits[name].directory}: {item.name}: {item.reason}"
        for name, item in islice(damaged(data, journal), SHOWN)
    ]
    print("\n".join(lines))
    if samples + shards > SHOWN:
        print(f"… and {samples + shards - SHOWN:,} more")
    counts = f"{samples:,} finding(s) about samples and {shards:,} about whole shards"
    raise UserError(f"{counts}, the first {lines[0]}; all are in {str(out)!r}")


if __name__ == "__main__":
    sys.exit(main())
