"""The doctor inside a real allocation of two nodes, n1 and n2."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs.findings import Finding
from tests.processes import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("slurm")]  # one Slurm at a time on one machine


def test_the_doctor_checks_both_nodes_of_a_real_allocation(slurm: Any, tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    words = [f"data={tiny_directory}", f"shared={tmp_path / 'runs'}", f"json={tmp_path / 'found.json'}", "seconds=0.5"]
    doctor = [sys.executable, "-m", "cluster_jobs.doctor", *words, "timeout=100"]
    environment = {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT)}  # the virtual nodes have no names in DNS
    ended = slurm.run(["salloc", "--nodes=2", f"--chdir={ROOT}", *doctor], environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = [Finding(**item) for item in json.loads((tmp_path / "found.json").read_text())]
    by_subject = {item.subject: item for item in found}
    assert [item.line for item in found if item.level == "fail"] == []
    assert by_subject["slurm"].level == "ok" and by_subject["requeue"].finding == "this job can be requeued"
    assert by_subject["nodes"].finding == "all 2 answer: n1, n2"
    assert by_subject["clocks"].level == "ok"
    assert by_subject["shared directory"].finding.endswith("n1, n2 wrote and synced files that are read here")
    assert "gloo between 2 processes on n1, n2" in by_subject["all-reduce"].finding
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_shared_directory_that_no_node_can_write_fails_in_a_real_allocation(slurm: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = [f"shared={tmp_path / 'file'}", "seconds=0.5", "timeout=100"]
    doctor = [sys.executable, "-m", "cluster_jobs.doctor", *words]
    environment = {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    ended = slurm.run(["salloc", "--nodes=2", f"--chdir={ROOT}", *doctor], environment)
    assert ended.returncode == 2
    assert "n1 cannot write (Not a directory), n2 cannot write (Not a directory)" in ended.stdout
    assert "2 of" in ended.stderr and "checks failed: shared directory, shared directory" in ended.stderr
