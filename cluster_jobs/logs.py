"""Shows the end of the stages' logs: ``python -m cluster_jobs.logs root=RUNS stage=NAME``."""

import sys
from dataclasses import dataclass
from pathlib import Path

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.display import tail


@dataclass
class LogsConfig:
    """Prints the last lines of the log of one stage, or of every stage that has one."""

    root: str = option(MISSING, "root of a pipeline, wherever it runs", path=True)
    stage: str = option("", "one stage only")
    lines: int = option(20, "lines of each log")


@command(LogsConfig)
def main(config: LogsConfig) -> None:
    if config.lines < 1:
        raise UserError(f"lines={config.lines}: expected a positive integer")
    logs = sorted(Path(config.root, "stages").glob("*/log.txt"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise UserError(f"root={config.root}: no stage has a log there (expected ROOT/stages/NAME/log.txt)")
    chosen = [log for log in logs if config.stage in ("", log.parent.name)]
    if not chosen:
        raise UserError(f"stage={config.stage}: expected one of {', '.join(sorted(log.parent.name for log in logs))}")
    for log in chosen:
        print(f"== {log}")
        print("\n".join(tail(log, config.lines)))


if __name__ == "__main__":
    sys.exit(main())
