"""The ready configurations for `accelerate launch`, read by accelerate itself and launched where a CPU can."""

import importlib.resources
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from tests.processes import HANG_SECONDS, ROOT, free_port

DIRECTORY = Path(str(importlib.resources.files("cluster_jobs.conf"))) / "accelerate"
SIZES = {  # machines, processes, kind
    "one_gpu": (1, 1, DistributedType.NO),
    "eight_gpus": (1, 8, DistributedType.MULTI_GPU),
    "nodes": (2, 16, DistributedType.MULTI_GPU),
}


@pytest.mark.parametrize("name", SIZES)
def test_accelerate_reads_each_configuration_as_meant(name: str) -> None:
    config = load_config_from_file(str(DIRECTORY / f"{name}.yaml"))  # an unknown key raises
    assert isinstance(config, ClusterConfig)
    assert (config.num_machines, config.num_processes, config.distributed_type) == SIZES[name]
    assert config.mixed_precision == "no" and not config.dynamo_config and not config.use_cpu
    if name == "nodes":
        assert config.main_process_ip and config.main_process_port and config.rdzv_backend == "static"


def test_every_configuration_is_tested() -> None:
    assert {path.stem for path in DIRECTORY.iterdir()} == set(SIZES)


def launch(name: str, flags: list[str], out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(DIRECTORY / f"{name}.yaml")]
    module = ["-m", "tests.cluster_jobs.distributed.toy_collectives", f"out={out}", "threads=1"]
    return subprocess.Popen(
        [*command, *flags, *module],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("name", "machines", "overrides"),
    [
        ("one_gpu", 1, []),
        ("eight_gpus", 1, ["--num_processes", "2"]),
        ("nodes", 2, ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]),
    ],
)
def test_accelerate_launches_each_configuration_on_cpus(
    name: str, machines: int, overrides: list[str], tmp_path: Path
) -> None:
    port = ["--main_process_port", str(free_port())] if machines > 1 else []
    ranks = [["--machine_rank", str(rank)] if machines > 1 else [] for rank in range(machines)]
    launched = [launch(name, [*overrides, *port, *rank], tmp_path) for rank in ranks]
    try:
        outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in launched]
    finally:
        for process in launched:
            process.kill()
    assert [process.returncode for process in launched] == [0] * machines, "\n".join(outputs)
    world = SIZES[name][1] if name == "one_gpu" else 2
    places = [json.loads((tmp_path / f"{rank}.json").read_text())["place"][:2] for rank in range(world)]
    assert places == [[rank, world] for rank in range(world)]
