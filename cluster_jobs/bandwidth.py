"""All-reduce bandwidth: NCCL with GPUs, gloo without; over the nodes of an allocation, or between local processes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from cluster_jobs.allocation import Allocation, Ended, run, srun
from cluster_jobs.findings import Finding, fail, ok, warn

MIB = {"nccl": 64, "gloo": 16}
LEAST = {"nccl": 1.0, "gloo": 0.05}  # GB/s, below which all-reduce holds a training up
WORKER = "cluster_jobs.all_reduce"


def on_this_machine(gpus: int, seconds: float, timeout: float) -> Finding:
    """Between one process a GPU, or between two on the CPU."""
    processes = max(2, gpus)
    chosen = "nccl" if gpus > 1 else "gloo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    ranks = [
        subprocess.Popen(
            words(chosen, seconds, timeout),
            env=outside | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    return judge(chosen, f"{processes} processes of this machine", _end(ranks, timeout), timeout)


def _end(ranks: Sequence[subprocess.Popen[bytes]], timeout: float) -> Ended:
    """Waits for ranks of this machine; when time is up, or one has failed, the others are killed."""
    deadline = time.monotonic() + timeout
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        if any(rank.poll() for rank in ranks):
            break
        time.sleep(0.05)
    codes = [rank.poll() for rank in ranks]
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
    texts = [rank.communicate() for rank in ranks]
    failed = next((number for number, code in enumerate(codes) if code), 0)
    code = codes[failed] if any(codes) else None if None in codes else 0
    return Ended(
        code, texts[0][0].decode(errors="replace"), " ".join(texts[failed][1].decode(errors="replace").split())
    )


def over_nodes(inside: Allocation, gpus: int, seconds: float, timeout: float) -> Finding:
    """Between all nodes of an allocation, one process a GPU or one a node.

    Args:
        gpus: the GPUs of the node that has the fewest.
    """
    tasks = max(1, gpus)
    processes = tasks * len(inside.nodes)
    if processes == 1:
        return on_this_machine(gpus, seconds, timeout)
    chosen = "nccl" if gpus else "gloo"
    port = 20000 + (int(inside.job) * 7 + 6) % 20000  # like the port of a batch job's ranks, but another one
    environment = os.environ | {"MASTER_ADDR": inside.head, "MASTER_PORT": str(port)}
    ended = run([*srun(len(inside.nodes), tasks), *words(chosen, seconds, timeout)], timeout, environment)
    return judge(chosen, f"{processes} processes on {', '.join(inside.nodes)}", ended, timeout)


def words(chosen: str, seconds: float, timeout: float) -> list[str]:
    """The command of one rank, which gives up in time to say why."""
    return [sys.executable, "-m", WORKER, chosen, str(MIB[chosen]), str(seconds), str(timeout / 2)]


def judge(chosen: str, between: str, ended: Ended, timeout: float) -> Finding:
    """The finding from rank 0's line."""
    line = next((line for line in ended.output.splitlines() if line.startswith('{"world"')), None)
    if line is None:
        reason = f"not finished within {timeout:g} s" if ended.code is None else ended.error[-300:]
        remedy = "name the interface between nodes (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME), open its ports, "
        return fail("all-reduce", f"{chosen} between {between}: {reason}", remedy + "and look at NCCL_DEBUG=INFO")
    result = json.loads(line)
    what = f"{chosen} between {between}: {result['gigabytes_a_second']:.2f} GB/s (bus bandwidth, {MIB[chosen]} MiB)"
    if not result["correct"]:
        return fail("all-reduce", f"{what}, but the sum is wrong", "do not train here: report the nodes")
    if result["gigabytes_a_second"] < LEAST[chosen]:
        remedy = "is it the fast network? NCCL_DEBUG=INFO says which one is used, NCCL_SOCKET_IFNAME chooses"
        return warn("all-reduce", what, remedy)
    return ok("all-reduce", what)
