"""A lock in the hands of another process, for as long as a block lasts."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.processes import ROOT

HOLD = """
import sys
from pathlib import Path
from cluster_jobs.core.output_directory import OutputDirectory, OutputFile
with {kind}(Path(sys.argv[1])).locked(part=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(path: Path, *, file: bool = False, part: str = "") -> Iterator[int]:
    """Another process writes an output: a directory, or a file (or what appears by one rename); yields its number."""
    program = HOLD.format(kind="OutputFile" if file else "OutputDirectory")
    command = [sys.executable, "-c", program, str(path), part]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate("")
