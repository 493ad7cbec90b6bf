"""Checks of this machine and the limits of this process: cores, interconnect, stray configuration."""

import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from cluster_jobs.core.workers import cores
from cluster_jobs.diagnostics.findings import Finding, fail, ok, warn

BOOKKEEPING = ("compute_environment", "debug", "main_training_function", "rdzv_backend", "same_network")


def machine(environment: Mapping[str, str], gpus: int) -> list[Finding]:
    """All findings about this machine that need no measurement."""
    interfaces = sorted(path.name for path in Path("/sys/class/net").glob("*"))
    return [
        *cpu(cores(), cpu_quota(), environment.get("OMP_NUM_THREADS"), cpu_flags(), gpus),
        infiniband(),
        nvlink(nvlink_status(), gpus),
        *(socket_interface(name, environment.get(name), interfaces) for name in INTERFACE_VARIABLES),
        accelerate_config(environment),
        shared_memory(),
        open_files(),
        host_name(socket.gethostname()),
    ]


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets of the CPU, by the kernel's names."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """The cores' worth of time that this process' control groups (version 1 or 2) allow, None for no limit."""
    quotas = []
    for line in membership.read_text().splitlines() if membership.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        leaf = base / group.lstrip("/")
        for directory in (leaf, *leaf.parents):
            quotas += _quota(directory)
            if directory == base:
                break
    return min(quotas, default=None)


def _quota(directory: Path) -> list[float]:
    if (directory / "cpu.max").is_file():
        quota, period = (directory / "cpu.max").read_text().split()
    elif (directory / "cpu.cfs_quota_us").is_file():
        quota = (directory / "cpu.cfs_quota_us").read_text().strip()
        period = (directory / "cpu.cfs_period_us").read_text().strip()
    else:
        return []
    return [] if quota in ("max", "-1") else [int(quota) / int(period)]


def cpu(cores: int, quota: float | None, threads: str | None, flags: Collection[str], gpus: int) -> list[Finding]:
    """Threads against cores, and bf16 where there is no GPU to compute on.

    Args:
        cores: cores that this process may run on.
        quota: cores' worth of time that it may use, None without a limit.
        threads: the value of OMP_NUM_THREADS.
    """
    usable = cores if quota is None else min(cores, max(1, int(quota)))
    what = f"{cores} core(s)" + ("" if quota is None else f", of which a quota leaves {quota:g}")
    remedy = f"set threads={usable} (or OMP_NUM_THREADS={usable}), divided by the processes on this machine"
    if threads and threads.isdigit() and int(threads) > usable:
        findings = [warn("cpu", f"{what}, but OMP_NUM_THREADS={threads}", remedy)]
    elif not threads and usable < cores:
        findings = [warn("cpu", f"{what}, and OMP_NUM_THREADS is not set", remedy)]
    else:
        findings = [ok("cpu", f"{what}, OMP_NUM_THREADS {'is not set' if not threads else f'= {threads}'}")]
    fast = sorted(set(flags) & {"avx512_bf16", "amx_bf16", "bf16"})
    if fast:
        findings.append(ok("cpu precision", f"bf16 instructions: {', '.join(fast)}"))
    elif gpus:
        findings.append(ok("cpu precision", "no bf16 instructions; the GPUs compute"))
    else:
        findings.append(warn("cpu precision", "no bf16 instructions: precision=bf16 would be slow", "use precision=no"))
    return findings


def infiniband(root: Path = Path("/sys/class/infiniband")) -> Finding:
    """The InfiniBand ports of this machine, active or not."""
    active: list[str] = []
    inactive: list[str] = []
    for port in sorted(root.glob("*/ports/*")):
        name = f"{port.parts[-3]}:{port.name}"
        rate = (port / "rate").read_text().strip() if (port / "rate").is_file() else "?"
        (active if "ACTIVE" in (port / "state").read_text() else inactive).append(f"{name} {rate}")
    if active:
        return ok("infiniband", ", ".join(active))
    if inactive:
        remedy = "ask the administrators; meanwhile NCCL uses TCP"
        return warn("infiniband", f"no port is active ({', '.join(inactive)})", remedy)
    return ok("infiniband", "none visible; between nodes NCCL and gloo use TCP")


def nvlink_status() -> str:
    """The output of ``nvidia-smi nvlink --status``, empty where there is no nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return ""
    return subprocess.run(["nvidia-smi", "nvlink", "--status"], capture_output=True, text=True, timeout=30).stdout


def nvlink(status: str, gpus: int) -> Finding:
    """NVLink's active links from the text of ``nvidia-smi nvlink --status``."""
    links = sum("GB/s" in line for line in status.splitlines())
    if links:
        return ok("nvlink", f"{links} active links")
    return ok("nvlink", "none visible" + ("; GPUs talk over PCIe" if gpus > 1 else ""))


INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def socket_interface(variable: str, value: str | None, interfaces: Collection[str]) -> Finding:
    """Whether a variable that chooses network interfaces chooses any that is there.

    NCCL takes prefixes, ``=name`` for exactly this one and ``^name`` for all others; gloo takes names.
    """
    if not value:
        return ok(variable, "not set, so the library chooses")
    excluded, exact = value.startswith("^"), value.startswith(("=", "^=")) or variable.startswith("GLOO")
    names = value.lstrip("^=").split(",")
    chosen = [
        interface
        for interface in interfaces
        if excluded != any(interface == name if exact else interface.startswith(name) for name in names)
    ]
    if chosen:
        return ok(variable, f"{value} chooses {', '.join(chosen)}")
    remedy = f"name one of {', '.join(interfaces)}, or unset it"
    return fail(variable, f"{value} chooses no network interface of this machine", remedy)


def accelerate_config(environment: Mapping[str, str]) -> Finding:
    """A default configuration of accelerate, which fills in what a launch line leaves out."""
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", ""), ".cache")
    path = Path(environment.get("HF_HOME") or os.path.join(cache, "huggingface")) / "accelerate" / "default_config.yaml"
    if not path.is_file():
        return ok("accelerate config", f"no {path}")
    try:
        values = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name not in BOOKKEEPING}
    except (yaml.YAMLError, AttributeError, ValueError) as error:
        return warn("accelerate config", f"{path} is unreadable ({' '.join(str(error).split())})", "remove it")
    settings = ", ".join(f"{name}={value}" for name, value in values.items() if not isinstance(value, dict | list))
    return warn(
        "accelerate config",
        f"{path} fills in what a launch line leaves out: {settings}",
        "remove it, or set HF_HOME elsewhere; launch lines here pass processes, machines, precision and address",
    )


def shared_memory(path: Path = Path("/dev/shm")) -> Finding:
    """The size of shared memory, through which reader processes pass their batches."""
    if not path.is_dir():
        return warn("shared memory", f"{path} does not exist", "use workers=0, or mount a tmpfs there")
    usage = shutil.disk_usage(path)
    what = f"{path} has {usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free"
    if usage.free < 2**30:
        remedy = "docker run --shm-size=16g (or --ipc=host); else few or no reader processes (workers=0)"
        return warn("shared memory", what, remedy)
    return ok("shared memory", what)


def open_files() -> Finding:
    """The limit of open files: a process keeps up to 256 shards open, and shares descriptors with its readers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"ulimit -n {65536 if hard == resource.RLIM_INFINITY else min(65536, hard)}"
    if soft != resource.RLIM_INFINITY and soft < 512:
        return fail(
            "open files", f"limit {soft:,}, a process keeps up to 256 shards open besides its libraries", remedy
        )
    if soft != resource.RLIM_INFINITY and soft < 4096:
        return warn("open files", f"limit {soft:,}, which many reader processes may reach", remedy)
    return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"limit {soft:,}")


def host_name(name: str) -> Finding:
    """Whether this machine's own name resolves, as a rendezvous goes by names."""
    address = resolve(name)
    if address:
        return ok("host name", f"{name} is {address}")
    return warn("host name", f"{name} does not resolve on this machine", f"add it to /etc/hosts: 127.0.0.1 {name}")


def resolve(name: str) -> str:
    """The address of a name, empty where it has none."""
    try:
        return str(socket.getaddrinfo(name, None)[0][4][0])
    except OSError:
        return ""
