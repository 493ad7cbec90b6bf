"""Cores, limits, interconnect and stray configuration, made in directories and processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster_jobs.diagnostics.machine import (
    accelerate_config,
    cpu,
    cpu_flags,
    cpu_quota,
    host_name,
    infiniband,
    nvlink,
    shared_memory,
    socket_interface,
)
from tests.processes import ROOT


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("cores", "quota", "threads", "gpus", "flags", "expected"),
    [
        (8, None, None, 0, {"amx_bf16"}, ["ok", "ok"]),
        (8, None, "8", 0, {"avx512_bf16"}, ["ok", "ok"]),
        (8, None, "16", 0, {"bf16"}, ["warn", "ok"]),
        (64, 4.0, None, 0, {"bf16"}, ["warn", "ok"]),
        (64, 4.0, "4", 0, {"bf16"}, ["ok", "ok"]),
        (64, 4.0, "8", 8, set(), ["warn", "ok"]),
        (8, None, None, 0, {"avx2"}, ["ok", "warn"]),
        (2, 0.5, "1", 0, {"bf16"}, ["ok", "ok"]),
    ],
)
def test_threads_are_compared_with_the_cores_that_there_really_are(
    cores: int, quota: float | None, threads: str | None, gpus: int, flags: set[str], expected: list[str]
) -> None:
    assert [found.level for found in cpu(cores, quota, threads, flags, gpus)] == expected


def test_a_warning_about_threads_says_how_many_to_take() -> None:
    assert "threads=4" in cpu(64, 4.0, None, {"bf16"}, 0)[0].remedy


def test_the_quota_is_the_smallest_of_the_control_group_and_its_parents(tmp_path: Path) -> None:
    write(tmp_path / "v2/self", "0::/slurm/job_7\n")
    write(tmp_path / "v2/cg/cpu.max", "max 100000\n")
    write(tmp_path / "v2/cg/slurm/cpu.max", "400000 100000\n")
    write(tmp_path / "v2/cg/slurm/job_7/cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path / "v2/cg", tmp_path / "v2/self") == 4.0
    write(tmp_path / "v1/self", "9:name=systemd:/x\n4:memory:/docker\n2:cpu,cpuacct:/docker\n")
    write(tmp_path / "v1/cg/cpu,cpuacct/docker/cpu.cfs_quota_us", "150000\n")
    write(tmp_path / "v1/cg/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "v1/cg/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "v1/cg/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path / "v1/cg", tmp_path / "v1/self") == 1.5
    assert cpu_quota(tmp_path / "none", tmp_path / "none/self") is None


def test_the_flags_of_both_kinds_of_cpu_are_read(tmp_path: Path) -> None:
    write(tmp_path / "intel", "processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\n")
    write(tmp_path / "arm", "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert "amx_bf16" in cpu_flags(tmp_path / "intel") and "bf16" in cpu_flags(tmp_path / "arm")
    assert cpu_flags(tmp_path / "none") == set()


def test_infiniband_ports_are_active_or_a_warning(tmp_path: Path) -> None:
    assert infiniband(tmp_path).level == "ok" and "use TCP" in infiniband(tmp_path).finding
    port = tmp_path / "mlx5_0/ports/1"
    write(port / "state", "1: DOWN\n")
    write(port / "rate", "10 Gb/sec (4X SDR)\n")
    assert infiniband(tmp_path).level == "warn"
    write(port / "state", "4: ACTIVE\n")
    write(port / "rate", "200 Gb/sec (4X HDR)\n")
    found = infiniband(tmp_path)
    assert found.level == "ok" and found.finding == "mlx5_0:1 200 Gb/sec (4X HDR)"


def test_nvlink_links_are_counted() -> None:
    status = "GPU 0: NVIDIA H100 (UUID: GPU-1)\n\t Link 0: 26.562 GB/s\n\t Link 1: 26.562 GB/s\n\t Link 2: <inactive>\n"
    assert nvlink(status, 8).finding == "2 active links"
    assert "PCIe" in nvlink("", 2).finding and "PCIe" not in nvlink("", 0).finding


@pytest.mark.parametrize(
    ("variable", "value", "level", "words"),
    [
        ("NCCL_SOCKET_IFNAME", None, "ok", "not set"),
        ("NCCL_SOCKET_IFNAME", "eth", "ok", "chooses eth0, eth1"),
        ("NCCL_SOCKET_IFNAME", "=eth0", "ok", "chooses eth0"),
        ("NCCL_SOCKET_IFNAME", "=eth", "fail", "chooses no network interface"),
        ("NCCL_SOCKET_IFNAME", "^lo,docker", "ok", "chooses eth0, eth1"),
        ("NCCL_SOCKET_IFNAME", "^eth,lo,docker", "fail", "chooses no"),
        ("NCCL_SOCKET_IFNAME", "ib0", "fail", "chooses no"),
        ("GLOO_SOCKET_IFNAME", "eth", "fail", "chooses no"),
        ("GLOO_SOCKET_IFNAME", "eth1", "ok", "chooses eth1"),
    ],
)
def test_a_variable_that_chooses_interfaces_must_choose_one(
    variable: str, value: str | None, level: str, words: str
) -> None:
    found = socket_interface(variable, value, ["docker0", "eth0", "eth1", "lo"])
    assert found.level == level and words in found.finding


def test_a_stray_accelerate_config_is_a_warning_that_says_what_it_sets(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert accelerate_config(home).level == "ok"
    path = tmp_path / ".cache/huggingface/accelerate/default_config.yaml"
    write(path, yaml.safe_dump({"compute_environment": "LOCAL_MACHINE", "num_machines": 4, "mixed_precision": "fp16"}))
    found = accelerate_config(home)
    assert found.level == "warn" and str(path) in found.finding and "remove it" in found.remedy
    assert "mixed_precision=fp16" in found.finding and "num_machines=4" in found.finding
    assert accelerate_config(home | {"HF_HOME": str(tmp_path / "elsewhere")}).level == "ok"
    assert accelerate_config({"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path / ".cache")}).level == "warn"
    write(path, "- a list\n")
    assert accelerate_config(home).level == "warn" and "unreadable" in accelerate_config(home).finding


@pytest.mark.slow
def test_accelerate_looks_for_its_config_where_the_check_does(tmp_path: Path) -> None:
    outside = {key: value for key, value in os.environ.items() if key not in ("HF_HOME", "XDG_CACHE_HOME")}
    program = (
        "import importlib, os, sys\n"
        "from accelerate.commands.config import config_args\n"
        "for name in ('HOME', 'XDG_CACHE_HOME', 'HF_HOME'):\n"
        "    os.environ[name] = os.path.join(sys.argv[1], name)\n"
        "    print(importlib.reload(config_args).default_config_file)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    paths = subprocess.run(words, env=outside, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    environment = dict(outside)
    for name, path in zip(("HOME", "XDG_CACHE_HOME", "HF_HOME"), paths, strict=True):
        environment[name] = str(tmp_path / name)
        assert accelerate_config(environment).finding == f"no {path}" and str(tmp_path / name) in path


def test_shared_memory_that_is_small_or_missing_is_a_warning(tmp_path: Path) -> None:
    assert shared_memory(tmp_path / "none").level == "warn"
    found = shared_memory(tmp_path)
    statistics = os.statvfs(tmp_path)
    assert found.level == ("ok" if statistics.f_bavail * statistics.f_frsize >= 2**30 else "warn")


@pytest.mark.parametrize(("limit", "level"), [(300, "fail"), (1024, "warn"), (4096, "ok")])
def test_a_low_limit_of_open_files_is_named_with_the_command_that_raises_it(limit: int, level: str) -> None:
    program = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, 8192))\n"
        "from cluster_jobs.diagnostics.machine import open_files\n"
        "print(open_files().line)"
    )
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(level) and f"limit {limit:,}" in shown
    assert ("ulimit -n 8192" in shown) == (level != "ok")


def test_a_host_name_that_does_not_resolve_is_a_warning() -> None:
    assert host_name("localhost").level == "ok"
    found = host_name("no-such-host.invalid")
    assert found.level == "warn" and "/etc/hosts" in found.remedy
