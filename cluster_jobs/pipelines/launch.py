"""The command line that starts a stage, on this machine or on the nodes of a cluster."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cluster_jobs.pipelines.pipeline import Stage


@dataclass(frozen=True)
class Node:
    """One of the machines that a command runs on, and the address at which they connect; by default the only one."""

    total: int = 1  # machines in all
    number: int = 0  # of this machine, from 0
    head: str = ""  # address of machine 0
    port: int = 0  # on the head; 0, for one machine, lets the launcher choose


ALONE = Node()


def launch_words(stage: Stage, node: Node = ALONE) -> list[str]:
    """The command that starts a stage, with every setting, so that a stray accelerate configuration changes nothing.

    ``stage.processes`` run on every machine.
    """
    if stage.processes * node.total == 1:
        return ["python", "-m", stage.module, *stage.words]
    flags = {
        "num_processes": stage.processes * node.total,
        "num_machines": node.total,
        "machine_rank": node.number,
        "gpu_ids": "all",
        "mixed_precision": "no",
        "dynamo_backend": "no",
        "main_process_port": node.port,
    }
    if node.head:
        flags["main_process_ip"] = node.head
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return ["accelerate", "launch", "--multi_gpu", *words, "-m", stage.module, *stage.words]


def launch_environment(stage: Stage, *, gpus: bool | None = None, nodes: int = 1) -> dict[str, str]:
    """The variables that are part of a stage's command.

    Args:
        gpus: whether its machines have GPUs; None looks at this one.
    """
    environment = {"OMP_NUM_THREADS": str(stage.threads)} if stage.threads else {}
    if stage.processes * nodes > 1:
        if gpus is None:
            import torch  # takes seconds, and only a stage of several processes needs the answer

            gpus = torch.cuda.is_available()
        if not gpus:
            environment["ACCELERATE_USE_CPU"] = "true"
    return environment


def shown_command(stage: Stage) -> str:
    """The whole command as one would type it on this machine."""
    assignments = [f"{name}={value}" for name, value in launch_environment(stage).items()]
    return shlex.join([*assignments, *launch_words(stage)])


def executable_words(words: Sequence[str]) -> list[str]:
    """The words of `launch_words` with this interpreter instead of the ``python`` on the path."""
    programs = {"python": [sys.executable], "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"]}
    return [*programs[words[0]], *words[1:]]
