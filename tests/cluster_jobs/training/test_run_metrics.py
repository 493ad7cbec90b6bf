"""What a run tells those who look from outside."""

import json
import time
from pathlib import Path

from tests.processes import fork, fork_ranks

TOY = "tests.cluster_jobs.toy_train"


def test_progress_says_what_was_seen_and_what_of_it_survives_a_kill(tiny_directory: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (f"data={tiny_directory}", f"run.dir={run}", "batch=4", "threads=1", "checkpoint_nimg=12", "log_nimg=8")
    begin = time.time()
    fork(tmp_path / "log", TOY, *words, "total_nimg=40", env={"TOY_KILL_AT_NIMG": "32"})
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["nimg"], progress["saved_nimg"], progress["total_nimg"], progress["processes"]) == (32, 24, 40, 1)
    assert begin <= progress["time"] <= time.time()
    assert abs(progress["seconds_left"] * progress["images_per_second"] - 8) < 1e-6
    for ended in fork_ranks(tmp_path / "log", TOY, *words, "total_nimg=40"):
        assert ended.code == 0, ended.output
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["nimg"], progress["saved_nimg"], progress["seconds_left"], progress["processes"]) == (40, 40, 0, 2)
