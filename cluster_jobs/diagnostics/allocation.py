"""Checks of a Slurm allocation: a probe on every node, started by srun, and the settings of the job."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.diagnostics.clocks import ClockServer
from cluster_jobs.diagnostics.findings import Finding, fail, ok, warn

OUTSIDE = "not inside a Slurm allocation, so not checked"
OLDEST = (20, 11)  # `srun --overlap` came with it
KILL_SECONDS = 10.0  # between asking a command to end and ending it
SKEW_WARN, SKEW_FAIL = 1.0, 60.0  # seconds


@dataclass(frozen=True)
class Allocation:
    """A job's id, its nodes in order (the first is the head), and the address of the ranks' rendezvous."""

    job: str
    nodes: tuple[str, ...]
    head: str


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (None: it was killed after its time), stdout and stderr."""

    code: int | None
    output: str
    error: str

    @property
    def reason(self) -> str:
        """The first error that it printed, else its last line, in one line of at most 300 characters."""
        lines = [" ".join(line.split()) for line in self.error.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"^(\S+: )?[\w.]*Error: ", line)]
        return (errors or lines[-1:] or [f"exit code {self.code}"])[0][:300]


def run(words: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> Ended:
    """Runs a command to its end, or kills it after ``timeout`` seconds and keeps what it printed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment) as process:
        try:
            output, error = process.communicate(timeout=timeout)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            code = None
            process.terminate()  # srun passes it on to its tasks
            try:
                output, error = process.communicate(timeout=KILL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, error = process.communicate()
    return Ended(code, output.decode(errors="replace"), error.decode(errors="replace"))


def srun(nodes: int, tasks: int) -> list[str]:
    """The beginning of a command that starts ``tasks`` tasks on each node, beside other steps of the job."""
    return ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes * tasks}", f"--ntasks-per-node={tasks}"]


def allocation(environment: Mapping[str, str]) -> Allocation | None:
    """The allocation that this process runs in, if it does."""
    job, names = environment.get("SLURM_JOB_ID"), environment.get("SLURM_JOB_NODELIST")
    if not job or not names or not shutil.which("scontrol"):
        return None
    nodes = tuple(run(["scontrol", "show", "hostnames", names], 30).output.split())
    return Allocation(job, nodes, environment.get("MASTER_ADDR") or nodes[0]) if nodes else None


def slurm(inside: Allocation | None, job: str | None) -> list[Finding]:
    """Slurm's version, and whether this job can be requeued.

    Args:
        job: the job's id by the environment, which is there in a container that lacks Slurm's commands, too.
    """
    if job and inside is None:
        state = f"job {job} runs here, but scontrol is missing or does not know it, so its nodes are not checked"
        return [warn("slurm", state, "run the doctor outside of the container, or make Slurm's client available in it")]
    if not shutil.which("sinfo"):
        return [ok("slurm", "not installed on this machine")]
    findings = [slurm_version(run(["sinfo", "--version"], 30))]
    if inside is None:
        return [*findings, ok("requeue", OUTSIDE)]
    return [*findings, requeue(run(["scontrol", "--oneliner", "show", "job", inside.job], 30))]


def slurm_version(answer: Ended) -> Finding:
    """From a line such as ``slurm-wlm 22.05.8``."""
    numbers = re.search(r"(\d+)\.(\d+)", answer.output)
    if numbers is None:
        return warn("slurm", f"installed, but not usable here: {answer.reason}", "submit from a login node")
    version = answer.output.strip()
    if tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return warn("slurm", f"{version} is older than {oldest}", "srun --overlap is missing; start steps one by one")
    return ok("slurm", version)


def requeue(answer: Ended) -> Finding:
    """From ``scontrol show job``."""
    setting = re.search(r"\bRequeue=(\d)", answer.output)
    if setting is None:
        return warn(
            "requeue", f"scontrol does not show this job ({answer.reason})", "is slurmctld reachable from here?"
        )
    if setting[1] == "0":
        return warn("requeue", "this job cannot be requeued, so a preemption ends it", "submit with sbatch --requeue")
    return ok("requeue", "this job can be requeued")


def probe(inside: Allocation, shared: str, timeout: float) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Starts a probe on every node. Returns the findings, and the raw answers in the order of the nodes.

    Args:
        shared: a directory that every node should be able to write, or empty.
        timeout: seconds that the probe may take.
    """
    nonce = f".doctor-{secrets.token_hex(8)}"
    with ClockServer(nonce) as server:
        address = os.environ.get("MASTER_ADDR") or socket.gethostname()
        words = [sys.executable, "-m", "cluster_jobs.diagnostics.node_probe", nonce, address, str(server.port), shared]
        ended = run([*srun(len(inside.nodes), 1), "--kill-on-bad-exit=0", *words, *inside.nodes], timeout)
    answers = {answer["node"]: answer for answer in _answers(ended.output)}
    seen = _collect(Path(shared), nonce, inside.nodes) if shared else {}
    findings = [answered(inside.nodes, answers, ended, timeout)]
    present = [answers[node] for node in inside.nodes if node in answers]
    if present:
        findings += [names(present, inside.head), clocks(present, server.offsets, address), versions(present)]
    if present and shared:
        findings.append(shared_by_all(shared, present, seen))
    return findings, present


def _answers(output: str) -> list[dict[str, Any]]:
    """The probes' lines; other output, such as that of a site's prolog, is skipped."""
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"node"')]


def _collect(shared: Path, nonce: str, nodes: Sequence[str]) -> dict[str, str]:
    """The content of every node's file as this process reads it (empty where there is none); the files are removed."""
    seen = {}
    for node in nodes:
        path = shared / f"{nonce}.{node}"
        try:
            seen[node] = path.read_text()
            path.unlink()
        except OSError:
            seen[node] = ""
    return {node: "" if text != nonce else text for node, text in seen.items()}


def answered(nodes: Sequence[str], answers: Mapping[str, Any], ended: Ended, timeout: float) -> Finding:
    """Which nodes answered the probe."""
    silent = [node for node in nodes if node not in answers]
    if not silent:
        return ok("nodes", f"all {len(nodes)} answer: {', '.join(nodes)}")
    reason = f"nothing within {timeout:g} s" if ended.code is None else ended.reason
    remedy = "is this Python on a file system that every node has? otherwise exclude the node (sbatch --exclude=)"
    return fail("nodes", f"no answer from {', '.join(silent)}: {reason}", remedy)


def names(answers: Sequence[Mapping[str, Any]], head: str) -> Finding:
    """Whether every node resolves the names of all nodes."""
    lost = [f"{', '.join(answer['unresolved'])} on {answer['node']}" for answer in answers if answer["unresolved"]]
    if not lost:
        return ok("node names", "resolve on every node")
    if all(head not in answer["unresolved"] for answer in answers):
        remedy = f"processes meet at {head}, which does; other services may need the names in DNS or /etc/hosts"
        return warn("node names", f"do not resolve: {'; '.join(lost)}", remedy)
    remedy = "have them put into DNS or /etc/hosts, or set MASTER_ADDR to an address of the first node"
    return fail("node names", f"do not resolve: {'; '.join(lost)}", remedy)


def clocks(answers: Sequence[Mapping[str, Any]], offsets: Mapping[str, float], address: str) -> Finding:
    """How far the nodes' clocks are from this one's (seconds), and whether they could connect at all."""
    cut_off = [f"{answer['node']} ({answer['clock']})" for answer in answers if answer["node"] not in offsets]
    if cut_off:
        problem = f"no TCP connection to {address} from {', '.join(cut_off)}"
        remedy = "ranks could not meet either: open the firewall between nodes, or set MASTER_ADDR to their network"
        return fail("clocks", problem, remedy)
    node, offset = max(offsets.items(), key=lambda item: abs(item[1]))
    what = f"{node} is {offset * 1000:+,.1f} ms from here, the largest difference"
    if abs(offset) >= SKEW_WARN:
        remedy = "have NTP or chrony repaired: times in logs and of files cannot be compared, credentials may expire"
        return (fail if abs(offset) >= SKEW_FAIL else warn)("clocks", what, remedy)
    return ok("clocks", what)


def versions(answers: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether all nodes have the same Python and packages, as bit-identical resuming needs."""
    first = answers[0]
    for answer in answers[1:]:
        other = [
            f"{name} {version} (on {first['node']} {first['versions'].get(name)})"
            for name, version in answer["versions"].items()
            if version != first["versions"].get(name)
        ]
        if other:
            remedy = "use one environment on a file system that all nodes share"
            return fail("node versions", f"{answer['node']} has {', '.join(other)}", remedy)
    return ok("node versions", ", ".join(f"{name} {version}" for name, version in first["versions"].items()))


def shared_by_all(shared: str, answers: Sequence[Mapping[str, Any]], seen: Mapping[str, str]) -> Finding:
    """Whether every node wrote into the shared directory, and this process can read what it wrote."""
    failed = [f"{answer['node']} cannot write ({answer['shared']})" for answer in answers if answer["shared"]]
    failed += [
        f"{answer['node']} wrote a file that is not seen here"
        for answer in answers
        if not answer["shared"] and not seen[answer["node"]]
    ]
    if failed:
        remedy = "runs need one directory that every node mounts and may write"
        return fail("shared directory", f"{shared}: {', '.join(failed)}", remedy)
    nodes = ", ".join(answer["node"] for answer in answers)
    return ok("shared directory", f"{shared}: {nodes} wrote and synced files that are read here")
