"""Batch scripts are text made from typed settings; site files and resources are checked; nothing here needs Slurm."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.pipeline import Stage
from cluster_jobs.pipelines.resources import Resources, read_resources
from cluster_jobs.pipelines.strict_yaml import read_yaml
from cluster_jobs.slurm.batch_script import BatchJob, batch_script, check_job, on_nodes, sbatch_words
from cluster_jobs.slurm.site import Site, read_site

HOSTILE = "a b'c\"d$(touch e)`f`;g%j#h=é"


def job(stage: Stage | None = None, site: Site | None = None, root: str = "/data/root") -> BatchJob:
    stage = stage or Stage("gan", "s3gan.train", ("run.dir=/data/root/gan",), (), 1, 1)
    return BatchJob(
        on_nodes(stage), site or Site(), "demo", Path(root) / "stages" / stage.name, Path("/data"), "/env/bin/python"
    )


def directives(script: str) -> dict[str, str]:
    found = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH ")]
    return {name: value for name, _, value in (line.partition("=") for line in found)}


def test_the_same_settings_give_the_same_script() -> None:
    assert batch_script(job()) == batch_script(job())


def test_what_a_stage_asks_for_becomes_directives() -> None:
    asked = Resources(nodes=8, gpus=8, cpus=96, memory="900G", time="2-00:00:00")
    site = Site(partition="gpu", account="proj", qos="long", constraint="h100&nvlink", grace_seconds=300)
    script = batch_script(job(Stage("gan", "s3gan.train", (), (), 1, 4, asked), site))
    assert directives(script) == {
        "requeue": "", "nodes": "8", "ntasks-per-node": "1", "cpus-per-task": "96", "gpus-per-node": "8",
        "mem": "900G", "time": "2-00:00:00", "partition": "gpu", "account": "proj", "qos": "long",
        "constraint": "h100&nvlink", "signal": "B:USR1@300", "open-mode": "append",
    }  # fmt: skip


def test_a_stage_gets_a_processor_for_each_thread_of_each_process_and_a_process_for_each_gpu() -> None:
    stage = Stage("gan", "s3gan.train", (), (), 3, 2)
    assert directives(batch_script(job(stage)))["cpus-per-task"] == "6"
    assert on_nodes(replace(stage, resources=Resources(gpus=4))).processes == 4


def test_only_jobs_of_several_processes_without_gpus_are_told_to_use_the_processor() -> None:
    alone = Stage("gan", "s3gan.train", (), (), 1, 1)
    assert "ACCELERATE_USE_CPU" not in batch_script(job(alone))
    assert "ACCELERATE_USE_CPU=true" in batch_script(job(replace(alone, resources=Resources(nodes=2))))
    assert "ACCELERATE_USE_CPU" not in batch_script(job(replace(alone, resources=Resources(nodes=2, gpus=8))))


def test_a_site_adds_modules_environment_and_a_container() -> None:
    site = Site(modules=("cuda/12.8",), environment=("export NCCL_SOCKET_IFNAME=ib0",), container=("apptainer", "x y"))
    script = batch_script(job(site=site))
    assert "\nmodule load cuda/12.8\n" in script
    assert "\nexport NCCL_SOCKET_IFNAME=ib0\n" in script
    assert "apptainer 'x y' /env/bin/python -m cluster_jobs.slurm.node" in script
    assert sbatch_words(job(site=Site(options=("--exclusive",))), [])[-2] == "--exclusive"


def test_dependencies_must_have_succeeded_and_are_not_waited_for_in_vain() -> None:
    words = sbatch_words(job(), ["12", "15"])
    assert "--dependency=afterok:12:15" in words and "--kill-on-invalid-dep=yes" in words
    assert not any("depend" in word for word in sbatch_words(job(), []))


def test_hostile_paths_are_quoted_for_bash_and_not_read_as_patterns_by_slurm(tmp_path: Path) -> None:
    hostile = job(root=str(tmp_path / HOSTILE))
    script = tmp_path / "job.sh"
    script.write_text(batch_script(hostile))
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    line = next(line for line in script.read_text().splitlines() if line.startswith("stop()"))
    assert str(hostile.directory / "STOP") in shlex.split(line)[4]
    assert f"--output={tmp_path}/{HOSTILE.replace('%', '%%')}/stages/gan/log.txt" in sbatch_words(hostile, [])


@pytest.mark.parametrize(
    ("hostile", "what"),
    [
        (job(root="/a\nb"), "root '/a"),
        (job(root="/a\\b"), "root '/a"),
        (replace(job(), pipeline="x\ny"), "job name 'x"),
        (job(Stage("gan", "m", ("text=a\nrm -r b",), (), 1, 1)), "stage 'gan': 'text=a"),
    ],
)
def test_what_slurm_cannot_carry_is_refused(hostile: BatchJob, what: str) -> None:
    with pytest.raises(UserError, match=what):
        check_job(hostile)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"node": "2"}, "unknown resource 'node': expected one of nodes, gpus"),
        ({"nodes": "0"}, "nodes='0': expected a whole number of at least 1"),
        ({"gpus": "-1"}, "gpus='-1': expected a whole number of at least 0"),
        ({"memory": "64 GB"}, "memory='64 GB': expected for example 64G"),
        ({"time": "4h"}, "time='4h': expected for example 4:00:00"),
        ({"array": "4", "nodes": "2"}, "array=4 nodes=2"),
    ],
)
def test_wrong_resources_are_one_line(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_resources(texts, "p.yaml: stage 'a'")


def test_a_time_without_quotes_stays_a_time(tmp_path: Path) -> None:
    """YAML 1.1 reads 4:00:00 as 14,400, which sbatch takes for minutes: ten days."""
    (tmp_path / "site.yaml").write_text("time: 4:00:00\n")
    assert read_site(str(tmp_path / "site.yaml")).time == "4:00:00"
    text = "a: 4:00:00\nb: 1:30.5\nc: 12\nd: 08\ne: 1.5\nf: -1.0e-3\ng: 0x1F\nh: 1_000\ni: .inf\n"
    (tmp_path / "numbers.yaml").write_text(text)
    found = dict(zip("cdefghi", (12, "08", 1.5, -0.001, 31, 1000, float("inf")), strict=True))
    assert read_yaml(tmp_path / "numbers.yaml") == {"a": "4:00:00", "b": "1:30.5", **found}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partion: gpu", "unknown setting 'partion': did you mean 'partition'?"),
        ("partition: 'gpu; rm -r x'", "expected a name"),
        ("restarts: many", "expected a whole number"),
        ("modules: cuda", "expected a list"),
        ('environment: ["a\\nb"]', "expected a list of single lines"),
        ("time: 4h", "expected a name, a number or a time"),
        ("- a", "expected a mapping"),
    ],
)
def test_a_wrong_site_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_site(str(tmp_path / "site.yaml"))


def test_the_default_site_says_what_the_settings_mean_and_changes_none() -> None:
    assert read_site("default") == Site()
    with pytest.raises(UserError, match="expected one of default, or the path"):
        read_site("nowhere")
