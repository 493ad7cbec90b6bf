"""All-reduce bandwidth: NCCL with GPUs, gloo without; over the nodes of an allocation, or between local processes."""

import json
import os
import sys

from cluster_jobs.diagnostics.allocation import Allocation, Ended, run, srun
from cluster_jobs.diagnostics.findings import Finding, fail, ok, warn

MIB = {"nccl": 64, "gloo": 16}
LEAST = {"nccl": 1.0, "gloo": 0.05}  # GB/s, below which all-reduce slows a training down


def on_this_machine(gpus: int, seconds: float, timeout: float) -> Finding:
    """Between one process per GPU, or between two on the CPU."""
    processes = max(2, gpus)
    chosen = "nccl" if gpus > 1 else "gloo"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher += ["--local-addr=127.0.0.1", "-m"]
    ended = run([*launcher, *worker(chosen, seconds, timeout)], timeout)
    return judge(chosen, f"{processes} processes of this machine", ended, timeout)


def over_nodes(inside: Allocation, gpus: int, seconds: float, timeout: float) -> Finding:
    """Between all nodes of an allocation, one process per GPU or one per node.

    Args:
        gpus: the GPUs of the node that has the fewest.
    """
    tasks = max(1, gpus)
    processes = tasks * len(inside.nodes)
    if processes == 1:
        return on_this_machine(gpus, seconds, timeout)
    chosen = "nccl" if gpus else "gloo"
    port = 20000 + (int(inside.job) * 7 + 6) % 12000  # like the port of a batch job's ranks, but another one
    environment = os.environ | {"MASTER_ADDR": inside.head, "MASTER_PORT": str(port)}
    words = [*srun(len(inside.nodes), tasks), "--kill-on-bad-exit=1", sys.executable, "-m"]
    ended = run([*words, *worker(chosen, seconds, timeout)], timeout, environment)
    return judge(chosen, f"{processes} processes on {', '.join(inside.nodes)}", ended, timeout)


def worker(chosen: str, seconds: float, timeout: float) -> list[str]:
    """One rank's module and arguments; its time-out is shorter than the check's, so that it can report the reason."""
    return ["cluster_jobs.diagnostics.all_reduce", chosen, str(MIB[chosen]), str(seconds), str(timeout / 2)]


def judge(chosen: str, between: str, ended: Ended, timeout: float) -> Finding:
    """The finding from rank 0's line."""
    interface = f"{chosen.upper()}_SOCKET_IFNAME"
    line = next((line for line in ended.output.splitlines() if line.startswith('{"world"')), None)
    if line is None:
        reason = f"not finished within {timeout:g} s" if ended.code is None else ended.reason
        remedy = f"first mend what failed above; else name the interface between nodes ({interface}) and open its ports"
        return fail("all-reduce", f"{chosen} between {between}: {reason}", remedy)
    result = json.loads(line)
    what = f"{chosen} between {between}: {result['gigabytes_a_second']:.2f} GB/s (bus bandwidth, {MIB[chosen]} MiB)"
    if not result["correct"]:
        return fail("all-reduce", f"{what}, but the sum is wrong", "do not train here: report the nodes")
    if result["gigabytes_a_second"] < LEAST[chosen]:
        remedy = f"is this the fast network ({interface} chooses), and is nothing else using it or the cores?"
        return warn("all-reduce", what, remedy)
    return ok("all-reduce", what)
