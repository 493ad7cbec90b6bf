"""Checks of the shared directory and of the shards: permissions, free space, file system, reading rate."""

import os
import re
import shutil
import time
from pathlib import Path

from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.data.shards import Shards
from cluster_jobs.diagnostics.findings import Finding, fail, ok, warn

NETWORK_FILE_SYSTEMS = (  # by the names in /proc/self/mountinfo, without "fuse."
    *("nfs", "nfs4", "lustre", "beegfs", "gpfs", "ceph", "cifs", "smb3", "9p", "virtiofs", "afs", "glusterfs"),
    *("orangefs", "panfs", "wekafs", "pvfs2", "sshfs", "s3fs", "gcsfuse", "goofys", "mountpoint-s3", "juicefs"),
    *("cvmfs", "daos", "dfuse"),
)
SLOW = 200.0  # images a second of one process, below which readers slow a training down
ROOM, LITTLE_ROOM = 1 << 30, 10 << 30  # bytes; a run keeps several checkpoints


def mounted(path: Path, table: str | None = None) -> tuple[str, str]:
    """The mount point of a path, and its type of file system.

    Args:
        table: the text of ``/proc/self/mountinfo``, read from there by default.
    """
    real = os.path.realpath(path)
    mount = "/", "?"
    for line in (table or Path("/proc/self/mountinfo").read_text()).splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(mount[0]):
            mount = point, after.split()[0]  # of two mounts at one point the later one counts
    return mount


def over_network(kind: str) -> bool:
    """Whether a type of file system is mounted over a network."""
    return kind.removeprefix("fuse.") in NETWORK_FILE_SYSTEMS


def mount_text(path: Path) -> str:
    """A path's file system in words."""
    point, kind = mounted(path)
    return f"{kind} mounted over the network at {point}" if over_network(kind) else f"local {kind} at {point}"


def shared(directory: Path) -> list[Finding]:
    """Whether this process can write, sync and read back a file in a directory, and how much space is free."""
    remedy = "make it, or choose a directory that your jobs may write (shared=DIR)"
    try:
        write_probe(directory / f".doctor.{os.getpid()}", "here")
    except OSError as error:
        return [fail("shared directory", f"{directory} cannot be written ({error.strerror})", remedy)]
    (directory / f".doctor.{os.getpid()}").unlink()
    return [
        ok("shared directory", f"{directory} is writable from here; {mount_text(directory)}"),
        room(directory),
    ]


def write_probe(path: Path, content: str) -> None:
    """Writes a file and waits until its disk or server has it."""
    with open(path, "w") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def room(directory: Path) -> Finding:
    """The free space where runs are written."""
    usage = shutil.disk_usage(directory)
    what = f"{usage.free / 2**30:,.1f} of {usage.total / 2**30:,.1f} GiB free at {directory}"
    if usage.free < ROOM:
        return fail("free disk", what, "make room: a checkpoint may not fit")
    if usage.free < LITTLE_ROOM:
        return warn("free disk", what, "make room, or keep fewer checkpoints (keep_last=1)")
    return ok("free disk", what)


def shards(data: str, seconds: float, nodes: int) -> list[Finding]:
    """The file system of shards, and how fast one process reads and decodes them in the order of a training.

    Args:
        data: a directory of shards, or one that holds ``train``.
        seconds: how long to read; less where an epoch takes less.
        nodes: nodes of the allocation.
    """
    from cluster_jobs.data.stream import Stream  # imports torch, which this machine may have broken

    directory = Path(data, "train") if Path(data, "train", "index.json").is_file() else data
    try:
        opened = Shards(directory)
        size = min(64, len(opened))
        images, begin = 0, time.perf_counter()
        for batch in Stream(opened, seed=0, batch=size).batches(0):
            images += len(batch.images)
            elapsed = time.perf_counter() - begin
            if elapsed >= seconds or images + size > len(opened):  # a second epoch might come from memory
                break
    except DamagedSample as error:
        return [fail("shards", str(error), f"python -m cluster_jobs.verify data='{directory}' lists all damage")]
    except UserError as error:
        return [fail("shards", str(error), "choose a directory of shards (data=DIR)")]
    rate = images / elapsed
    megabytes = rate * int(opened.shard_bytes.sum()) / len(opened) / 1e6
    what = f"one process reads {rate:,.0f} images/s ({megabytes:,.1f} MB/s) over {images:,} images of {directory}"
    remedy = "use more reader processes (workers=), smaller images, or shards nearer to the node"
    findings = [warn("read rate", what, remedy) if rate < SLOW else ok("read rate", what)]
    if os.path.isdir(directory):
        where = f"{directory} lies on {mount_text(Path(directory))}"
        if nodes > 1 and not over_network(mounted(Path(directory))[1]):
            findings.append(warn("shards", where, "make sure that every node has them under this path"))
        else:
            findings.append(ok("shards", where))
    return findings
