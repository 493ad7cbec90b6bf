"""Commands as real processes: started as a user would, or forked from a server that has imported torch already."""

import contextlib
import importlib
import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
TWO_CPU_PROCESSES = [
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
]
NOTHING: Mapping[str, str] = {}
HANG_SECONDS = 280.0  # nothing here takes as long on any machine: what does, hangs

PORTS_A_WORKER = 500
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
_first = 10_000 + PORTS_A_WORKER * _worker
_ports = itertools.cycle([_first + (os.getpid() + step) % PORTS_A_WORKER for step in range(PORTS_A_WORKER)])

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.cluster_jobs.toy_train", "torch._dynamo", "torch.utils.tensorboard"])


@dataclass
class Ended:
    """How a process ended: exit code (negative: the signal that killed it), stdout and stderr together."""

    code: int
    output: str


def free_port() -> int:
    """A port that stays free until it is used: each pytest process has its own, below those of batch jobs (20000-31999)
    and those that the system hands out to anybody (from 32768 on).
    """
    for port in itertools.islice(_ports, PORTS_A_WORKER):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError(f"all ports from {_first} to {_first + PORTS_A_WORKER - 1} are taken")


def launch(
    module: str, *words: str, processes: int = 1, env: Mapping[str, str] = NOTHING, timeout: float = HANG_SECONDS
) -> Ended:
    """Runs ``python -m module`` or, for two processes, ``accelerate launch`` on CPUs, from the repository root."""
    command = [sys.executable, "-m"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    if processes == 2:
        command += ["accelerate.commands.launch", *TWO_CPU_PROCESSES, "--main_process_port", str(free_port()), "-m"]
        variables["ACCELERATE_USE_CPU"] = "true"
    ended = subprocess.run(
        [*command, module, *words],
        cwd=ROOT,
        env=variables,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Ended(ended.returncode, ended.stdout)


class Forked:
    """A command (``module.main``) in a process of its own that starts within a tenth of a second."""

    def __init__(self, log: Path, module: str, *words: str, env: Mapping[str, str] = NOTHING) -> None:
        self.log = log
        self.process: ForkServerProcess = _server.Process(target=_enter, args=(str(log), module, words, dict(env)))
        self.process.start()

    def ended(self, timeout: float = HANG_SECONDS) -> Ended:
        """Waits for the end; a process that outlives ``timeout`` seconds is killed and fails the test."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {timeout} s:\n{self.log.read_text()}")
        return Ended(self.process.exitcode, self.log.read_text())


def fork(log: Path, module: str, *words: str, env: Mapping[str, str] = NOTHING) -> Ended:
    """Runs a command to its end in a forked process; its output goes to ``log``."""
    return Forked(log, module, *words, env=env).ended()


def start_ranks(log: Path, module: str, *words: str, env: Mapping[str, str] = NOTHING) -> list[Forked]:
    """Starts a command as two ranks over gloo, each with the variables that ``accelerate launch`` would set."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"ACCELERATE_USE_CPU": "true", **env}
    return [
        Forked(log.with_name(f"{log.name}-{rank}"), module, *words, env={"RANK": rank, "LOCAL_RANK": rank, **shared})
        for rank in ("0", "1")
    ]


def fork_ranks(log: Path, module: str, *words: str, env: Mapping[str, str] = NOTHING) -> list[Ended]:
    """Runs a command to its end as two ranks."""
    return [rank.ended() for rank in start_ranks(log, module, *words, env=env)]


def _enter(log: str, module: str, words: tuple[str, ...], env: dict[str, str]) -> None:
    os.environ.update({"OMP_NUM_THREADS": "1", **env})
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.exit(importlib.import_module(module).main(list(words)))
