from pathlib import Path
from types import SimpleNamespace
from typing import cast

from cluster_jobs.pipelines.pipeline import Stage
from cluster_jobs.slurm.after_job import progress
from cluster_jobs.training.checkpoint import CheckpointStore


def test_progress_grows_also_where_a_run_goes_back(tmp_path: Path) -> None:
    stage = cast(Stage, SimpleNamespace(arguments={"run.dir": str(tmp_path)}))
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=9)
    assert progress(stage) == 0
    for nimg in (10, 20, 30):
        store.save({}, nimg)
    assert progress(stage) == 30
    store.rewind(35, 10, "notes", {})
    assert progress(stage) == 35
    (tmp_path / "checkpoints" / "000000000010.json").write_text("{torn")
    assert progress(stage) == 10
