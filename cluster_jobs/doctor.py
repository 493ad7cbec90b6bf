"""Checks this machine and its Slurm allocation: ``python -m cluster_jobs.doctor [data=DIR] [shared=DIR]``."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cluster_jobs.cli.config import command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.diagnostics import allocation, bandwidth, findings
from cluster_jobs.diagnostics import machine as machine_checks
from cluster_jobs.diagnostics import software as software_checks
from cluster_jobs.diagnostics import storage as storage_checks
from cluster_jobs.diagnostics.findings import Finding, ok, warn


@dataclass
class DoctorConfig:
    """Checks machine, allocation, network, disks and shards; every line is ok, warn or fail, with the remedy.

    Inside a Slurm allocation (salloc, sbatch) it also checks every node. Exit code 2: something would not work.
    """

    data: str = option("", "shards whose read rate is measured", path=True)
    shared: str = option("", "directory that every node must be able to write, as your runs do", path=True)
    json: str = option("", "file for the same findings as JSON", path=True)
    seconds: float = option(3.0, "how long each measurement takes")
    timeout: float = option(120.0, "seconds that a check over processes or nodes may take")
    validate: bool = option(False, "check and print the configuration, then exit")


@command(DoctorConfig)
def main(config: DoctorConfig) -> None:
    for name in ("seconds", "timeout"):
        if not 0 < getattr(config, name) <= 3600:
            raise UserError(f"{name}={getattr(config, name)}: expected more than 0 and at most 3600")
    if config.validate:
        return
    printed = findings.show(examine(config), Console(highlight=False))
    if config.json:
        findings.save(printed, Path(config.json))
    failed = [finding.subject for finding in printed if finding.level == "fail"]
    if failed:
        raise UserError(f"{len(failed)} of {len(printed)} checks failed: {', '.join(failed)}")


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    inside = allocation.allocation(os.environ)
    nodes = len(inside.nodes) if inside else 1
    yield from guarded("software", software_checks.software)
    seen, gpus = software_checks.this_machines_gpus()
    yield from seen
    yield from guarded("machine", lambda: machine_checks.machine(os.environ, gpus))
    yield from guarded("slurm", lambda: allocation.slurm(inside, os.environ.get("SLURM_JOB_ID")))
    if config.shared:
        yield from guarded("shared directory", lambda: storage_checks.shared(Path(config.shared)))
    else:
        yield ok("shared directory", "not checked: no shared=DIR given")
    if inside:
        answers: list[dict] = []
        yield from guarded("nodes", lambda: _probe(inside, config, answers))
        gpus = min((answer["gpus"] for answer in answers), default=0)
        yield from guarded("all-reduce", lambda: [bandwidth.over_nodes(inside, gpus, config.seconds, config.timeout)])
    else:
        yield ok("nodes", allocation.OUTSIDE)
        yield from guarded("all-reduce", lambda: [bandwidth.on_this_machine(gpus, config.seconds, config.timeout)])
    if config.data:
        yield from guarded("shards", lambda: storage_checks.shards(config.data, config.seconds, nodes))
    else:
        yield ok("read rate", "not measured: no data=DIR given")


def _probe(inside: allocation.Allocation, config: DoctorConfig, answers: list[dict]) -> list[Finding]:
    shared = os.path.abspath(config.shared) if config.shared else ""
    probed, answered = allocation.probe(inside, shared, config.timeout)
    answers += answered
    return probed


def guarded(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check's findings; an unexpected error in one check must not hide the findings of those after it."""
    try:
        return check()
    except Exception as error:
        reason = " ".join(str(error).split())
        return [warn(subject, f"could not be checked ({type(error).__name__}: {reason})", "please report this line")]


if __name__ == "__main__":
    sys.exit(main())
