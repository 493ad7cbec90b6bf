"""A real Slurm of two virtual nodes on this machine, for tests: munged, slurmctld and two slurmd of its own.

No accounting, no cgroups, no systemd. Needs root and Debian's slurm-wlm and munge.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.processes import free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")
CPUS = 4  # that a node claims to have, whatever this machine has
UP_SECONDS = 120.0
NOTHING: Mapping[str, str] = {}


def missing() -> str:
    """Why no Slurm can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"no {', '.join(absent)}: apt-get install --no-install-recommends slurm-wlm munge"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons needs root"


class SlurmCluster:
    """``with SlurmCluster() as slurm: slurm.run(["sinfo"])``."""

    def __init__(self) -> None:
        # short: munge's socket has a path of at most 107 bytes
        self.directory = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.environment = {"SLURM_CONF": str(self.directory / "slurm.conf")}
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        directory = self.directory
        directory.chmod(0o755)
        key = directory / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (directory / name).mkdir()
        (directory / "gpu").touch()
        (directory / "gres.conf").write_text("".join(f"NodeName={n} Name=gpu File={directory}/gpu\n" for n in NODES))
        (directory / "slurm.conf").write_text(self._configuration())
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={directory}/munge.socket",
            f"--pid-file={directory}/munge.pid", f"--log-file={directory}/munge.log",
            f"--seed-file={directory}/munge.seed",
        )  # fmt: skip
        _wait(lambda: (directory / "munge.socket").exists(), "munge's socket")
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        _wait(lambda: self.run(["sinfo", "-h", "-o", "%T %D"]).stdout.split() == ["idle", "2"], "two idle nodes")

    def _configuration(self) -> str:
        directory = self.directory
        controller, *ports = [free_port() for _ in ("slurmctld", *NODES)]
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Gres=gpu:1"
            for node, port in zip(NODES, ports, strict=True)
        )
        return f"""\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=20
MessageTimeout=60
BatchStartTimeout=60
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
SchedulerParameters=sched_interval=1,batch_sched_delay=0
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

    def _daemon(self, *words: str) -> None:
        with open(self.directory / f"{words[0]}.out", "ab") as log:
            environment = os.environ | self.environment
            process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)

    def run(
        self, words: Sequence[str], env: Mapping[str, str] = NOTHING, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end, as on a login node of this cluster."""
        environment = os.environ | self.environment | dict(env)
        return subprocess.run([*words], env=environment, timeout=timeout, capture_output=True, text=True)

    def state(self, job: str) -> str:
        """A job's state as the controller has it, for example PENDING, RUNNING, COMPLETED, FAILED, CANCELLED."""
        shown = self.run(["scontrol", "--oneliner", "show", "job", job]).stdout
        return next((word.partition("=")[2] for word in shown.split() if word.startswith("JobState=")), "UNKNOWN")

    def wait(self, job: str, *states: str, timeout: float = 800) -> str:
        """Waits until a job has one of the states, and returns it."""
        _wait(lambda: self.state(job) in states, f"job {job} to be {' or '.join(states)}", timeout)
        return self.state(job)

    def cancel_all(self) -> None:
        """Ends every job, so that the next test finds an idle cluster."""
        self.run(["scancel", "--user=root"])
        _wait(lambda: not self.run(["squeue", "-h"]).stdout.strip(), "an empty queue")


def _wait(condition: Callable[[], bool], what: str, timeout: float = UP_SECONDS) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.1)
