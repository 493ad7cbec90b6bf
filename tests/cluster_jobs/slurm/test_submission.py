"""What is remembered of a pipeline on Slurm; the real thing is in test_slurm_cluster.py."""

from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.slurm.submission import RECORD, queued_jobs, submitted_root


def test_a_root_is_found_from_another_directory_than_it_was_submitted_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_json(tmp_path / "elsewhere" / "runs" / RECORD, {"working_directory": str(tmp_path / "project"), "jobs": {}})
    monkeypatch.chdir(tmp_path / "elsewhere")
    root, record = submitted_root("runs")
    assert root == tmp_path / "elsewhere" / "runs" and record["jobs"] == {}
    assert Path.cwd() == tmp_path / "project"


def test_a_root_that_was_never_submitted_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the root of a pipeline"):
        submitted_root(str(tmp_path))
    assert queued_jobs(tmp_path) == {}  # and asks no Slurm
