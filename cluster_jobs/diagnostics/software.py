"""Checks of what is installed: Python, packages against the tested versions, torch's build against the GPUs."""

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from cluster_jobs.core.versions import DISTRIBUTION, installed
from cluster_jobs.diagnostics.findings import Finding, fail, ok, warn

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
Installed = Callable[[str], str | None]  # a distribution's version, None where it is not installed


@dataclass(frozen=True)
class Gpu:
    """One GPU as torch sees it: memory in GiB, compute capability (major, minor)."""

    name: str
    memory: float
    capability: tuple[int, int]


def software() -> list[Finding]:
    """The findings about Python and the packages of this machine."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = "make .venv, or python -m pip install --constraint constraints.txt --editable ."
        return [warn("packages", f"{DISTRIBUTION} is not installed, so its requirements are unknown", remedy)]
    pins = read_pins(CONSTRAINTS.read_text()) if CONSTRAINTS.is_file() else {}
    return [ok("python", platform.python_version()), *packages(requirements, installed, pins), faiss(installed)]


def read_pins(text: str) -> dict[str, str]:
    """The ``name==version`` lines of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def packages(requirements: Sequence[str], installed: Installed, pins: Mapping[str, str]) -> list[Finding]:
    """The packages that are always needed, against what is required and what was tested together."""
    needed = [requirement for requirement in map(Requirement, requirements) if requirement.marker is None]
    present = {requirement.name: installed(requirement.name) for requirement in needed}
    findings = []
    for requirement in needed:
        version = present[requirement.name]
        if version is None or not requirement.specifier.contains(Version(version).public, prereleases=True):
            state = f"{version}, but {requirement.specifier} is needed" if version else "not installed"
            remedy = f"python -m pip install --constraint constraints.txt '{requirement}'"
            findings.append(fail(requirement.name, state, remedy))
    if findings:
        return findings
    if not pins:
        return [ok("packages", f"all {len(needed)} as required (no constraints.txt here to compare with)")]
    others = [
        f"{name} {version} (tested {pins[name]})"
        for name, version in present.items()
        if version and name in pins and Version(version).public != pins[name]
    ]
    if others:
        remedy = "python -m pip install --constraint constraints.txt --editable ."
        return [warn("packages", f"other versions than were tested together: {', '.join(others)}", remedy)]
    return [
        ok("packages", f"all {len(needed)} in the versions that were tested together (torch {present.get('torch')})")
    ]


def faiss(installed: Installed) -> Finding:
    """faiss-cpu and faiss-gpu install one module and overwrite each other's files."""
    names = [name for name in ("faiss-cpu", "faiss-gpu") if installed(name)]
    if len(names) == 2:
        remedy = "python -m pip uninstall -y faiss-cpu faiss-gpu, then install one of them"
        return fail("faiss", "faiss-cpu and faiss-gpu are both installed and overwrite each other", remedy)
    if not names:
        remedy = "python -m pip install --constraint constraints.txt faiss-cpu (or faiss-gpu)"
        return warn("faiss", "not installed, so selfsup.label method=kmeans cannot run", remedy)
    return ok("faiss", f"{names[0]} {installed(names[0])}")


def this_machines_gpus() -> tuple[list[Finding], int]:
    """The findings about this machine's GPUs, and how many of them torch can use."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a missing library of CUDA ends the import with OSError
        remedy = "python -m pip install --force-reinstall --constraint constraints.txt torch"
        return [fail("torch", f"cannot be imported ({' '.join(str(error).split())})", remedy)], 0
    seen = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        seen.append(Gpu(properties.name, properties.total_memory / 2**30, (properties.major, properties.minor)))
    findings = gpus(
        torch.__version__,
        torch.version.cuda or torch.version.hip,
        torch.cuda.get_arch_list() if seen else [],
        seen,
        bf16=bool(seen) and torch.cuda.is_bf16_supported(including_emulation=False),
        device_files=device_files(),
        driver=driver(),
    )
    return findings, len(seen)


def device_files(directory: Path = Path("/dev")) -> int:
    """The number of NVIDIA devices that this process can see, whether torch can use them or not."""
    return sum(path.name[len("nvidia") :].isdigit() for path in directory.glob("nvidia*"))


def driver() -> str:
    """The version of NVIDIA's driver, empty without one."""
    if not shutil.which("nvidia-smi"):
        return ""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout.strip() else ""


def gpus(
    version: str,
    cuda: str | None,
    architectures: Sequence[str],
    seen: Sequence[Gpu],
    *,
    bf16: bool,
    device_files: int,
    driver: str,
) -> list[Finding]:
    """Whether torch's build, the driver and the GPUs fit together.

    Args:
        cuda: the CUDA (or ROCm) version that torch was built with, None for the CPU build.
        architectures: what torch has kernels for, as ``sm_90``.
        device_files: as :func:`device_files` counts them.
    """
    if not seen and device_files:
        if cuda is None:
            remedy = "install the CUDA build of the same version: see pytorch.org/get-started"
            return [fail("gpu", f"{device_files} GPU(s), but torch {version} was built without CUDA", remedy)]
        problem = (
            f"{device_files} GPU(s), but torch {version} (CUDA {cuda}) cannot use them with driver {driver or '?'}"
        )
        return [fail("gpu", problem, "update the driver, or install torch built for an older CUDA; see nvidia-smi")]
    if not seen:
        return [ok("gpu", f"none; torch {version} computes on the CPU, processes talk over gloo")]
    findings = []
    for kind in sorted({(gpu.name, round(gpu.memory), gpu.capability) for gpu in seen}):
        name, memory, capability = kind
        count = sum((gpu.name, round(gpu.memory), gpu.capability) == kind for gpu in seen)
        what = f"{count} × {name}, {memory} GiB, driver {driver or '?'}, torch {version} (built with {cuda})"
        kernels = {int(name[3:].rstrip("af")) // 10 for name in architectures if name.startswith("sm_")}
        if kernels and capability[0] not in kernels:
            remedy = "install a torch build for this GPU"
            findings.append(fail("gpu", f"{what}: no kernels for compute capability {capability}", remedy))
        else:
            findings.append(ok("gpu", what))
    if len(findings) > 1:
        remedy = "ask the scheduler for one kind (a constraint); the slowest sets the pace"
        findings.append(warn("gpu", f"{len(findings)} different kinds in one machine", remedy))
    if len(seen) < device_files:
        remedy = "look at CUDA_VISIBLE_DEVICES if you want the others"
        findings.append(ok("gpu", f"{len(seen)} of {device_files} visible to this process; {remedy}"))
    if bf16:
        findings.append(ok("gpu precision", "bf16 in hardware (precision=bf16)"))
    else:
        findings.append(warn("gpu precision", "no bf16 in hardware: precision=bf16 would be slow", "use precision=no"))
    return findings
