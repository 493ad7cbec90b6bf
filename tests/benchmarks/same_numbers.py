"""Proves that a change of the code changed no number: tiny runs of all that trains or makes images, by their digests.

    python tests/benchmarks/same_numbers.py run --out before.json --repository OLDER_CHECKOUT
    python tests/benchmarks/same_numbers.py run --out after.json
    python tests/benchmarks/same_numbers.py compare before.json after.json

Both runs belong on one machine: rounding differs between processors, and between versions of PyTorch.
"""

import argparse
import hashlib
import json
import os
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors import deserialize

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE_BY_SIDE = 2  # commands that run at the same time
LAUNCH_TWO = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
LAUNCH_TWO += " --dynamo_backend no --main_process_port {port} -m"
EXIT_DONE, EXIT_USER, EXIT_PREEMPTED = 0, 2, 75
UNCOMPARED = ("speed/", "fd_random", "change/pixel_val")  # metrics

TRAIN = "batch=16 total_nimg=96 log_nimg=32 checkpoint_nimg=32 sample_nimg=64 eval_nimg=48"
TRAIN += " threads=1 workers=0 run.dir={here}"
REFINE = "total_nimg=256 width=4 blocks=1 lr_r=0.01 lr_d=0.01 regularisation=0.001 history=16 ema_nimg=16"
REFINE += " warm_refiner_nimg=32 warm_discriminator_nimg=32"
GAN = "network=biggan_light width=4 embedding_std=0.5 g_lr=0.002 d_lr=0.002 ema_decay=0.5"
FEW = "classifier.steps=4 classifier.batch=8 classifier.width=4 threads=1 out={here}"
COMMON = {  # words of every run of a command; {here} is a directory of its own, {NAME} that of the run of this name
    "cluster_jobs.pack": "out={here}",
    "cluster_jobs.mix": "real={digits}/train labels={budget}/table.parquet gan={pool} refined={refined} out={here}",
    "selfsup.pretrain": f"data={{digits}}/train task=rotation width=4 warmup_nimg=32 eval_count=32 {TRAIN}",
    "selfsup.features": "data={digits}/test encoder={pretrain} threads=1 out={here}/features.npy",
    "selfsup.label": "data={digits}/train threads=1 out={here}/table.parquet",
    "s3gan.train": f"data={{digits}}/train {GAN} {TRAIN}",
    "s3gan.generate": "count=40 threads=1 out={here}",
    "s3gan.export": "pool={pool} format=npz out={here}/pool.npz",
    "s3gan.evaluate": f"data={{digits}} budget={{budget}}/table.parquet {FEW}",
    "simgan.pack": "count=32 out={here}",
    "simgan.train": f"synthetic={{printed}}/train real={{digits}}/train {TRAIN} {REFINE}",
    "simgan.refine": "threads=1 out={here}",
    "simgan.evaluate": f"task=digits synthetic={{printed}} real={{digits}} {FEW}",
}
S3GAN = "method=s3gan labels={inferred}/table.parquet"
SUPERVISED = "method=supervised labels={truth}/table.parquet"
SOFT = "label_softness=1 min_confidence=0.15"
SCORED = "eval_encoder={pretrain} eval_count=32 eval_seeds=2 hold_out=true"
REGULARISED = "augment=ada lecam=0.3 consistency=10 orthogonal_g=0.0001 orthogonal_d=0.0001"
WASSERSTEIN = "loss=wasserstein gradient_penalty=10 d_spectral_norm=false augment=diffaugment"
SICK = "d_lr=1 g_lr=1 rollback_lr=0.001 health_nimg=48 min_d_loss=0 log_nimg=16 total_nimg=224"
INFERRED = "method=classifier labels={budget}/table.parquet encoder={pretrain} soft=true"
INFERRED += " classifier.steps=20 classifier.batch=8 classifier.rotation_batch=4"
AUTO = "schedule=auto log_nimg=16 d_loss_low=0.69 d_loss_high=0.7"
SICK_REFINER = "lr_r=1 lr_d=1 rollback_lr=0.001 health_nimg=96 log_nimg=48 regularisation=0.05 total_nimg=384"
EYES = "task=gaze synthetic={eyes}/train real={eyes_camera}/train fold=1"
HANDS = "task=hand synthetic={hands}/train real={hands_camera}/train patches=hand"


@dataclass(frozen=True)
class Run:
    """One command and the words of its own."""

    name: str
    module: str
    own: str = ""
    processes: int = 1
    stopped: bool = False  # a stop file ends it after a step, and the same command goes on
    renamed: str = ""  # these words instead, where the repository knows `own` by them

    @property
    def needs(self) -> set[str]:
        fields = string.Formatter().parse(f"{COMMON[self.module]} {self.own}")
        return {field for _, field, _, _ in fields if field} - {"here"}


RUNS = (
    Run("digits", "cluster_jobs.pack", "source=digits"),
    Run("printed", "simgan.pack", "source=printed_digits count=100"),
    Run("eyes", "simgan.pack", "source=eyes"),
    Run("eyes_camera", "simgan.pack", "source=eyes domain=camera"),
    Run("hands", "simgan.pack", "source=hands size=96"),
    Run("hands_camera", "simgan.pack", "source=hands size=96 domain=camera"),
    Run("pretrain", "selfsup.pretrain"),
    Run("pretrain_accumulate", "selfsup.pretrain", "accumulate=2 precision=bf16"),
    Run("pretrain_stopped", "selfsup.pretrain", stopped=True),
    Run("pretrain_two", "selfsup.pretrain", processes=2),
    Run("features", "selfsup.features"),
    Run("truth", "selfsup.label", "method=reveal fraction=1"),
    Run("budget", "selfsup.label", "method=reveal fraction=0.1"),
    Run("clusters", "selfsup.label", "method=kmeans clusters=5 encoder={pretrain}"),
    Run("inferred", "selfsup.label", INFERRED),
    Run("s3gan", "s3gan.train", S3GAN),
    Run("s3gan_stopped", "s3gan.train", S3GAN, stopped=True),
    Run("s3gan_two", "s3gan.train", f"{S3GAN} rotated_batch_fraction=2", processes=2),
    Run("s3gan_soft", "s3gan.train", f"{S3GAN} {SOFT}"),
    Run("s3gan_scored", "s3gan.train", f"{S3GAN} {SCORED}"),
    Run("s3gan_accumulate", "s3gan.train", f"{S3GAN} accumulate=2 rotated_batch_fraction=2 precision=bf16"),
    Run("s3gan_co", "s3gan.train", "method=s3gan_co labels={budget}/table.parquet soft_predictions=true"),
    Run("self_conditioned", "s3gan.train", "method=self_conditioned classes=5 recluster_nimg=32"),
    Run("clustering_ss", "s3gan.train", "method=clustering_ss labels={clusters}/table.parquet workers=2"),
    Run("regularised", "s3gan.train", f"{SUPERVISED} {REGULARISED}"),
    Run("relativistic", "s3gan.train", f"{SUPERVISED} loss=relativistic r1=1 r2=1 network=resnet_cifar"),
    Run("wasserstein", "s3gan.train", f"method=single_label network=sndcgan {WASSERSTEIN}"),
    Run("from_weights", "s3gan.train", f"{S3GAN} init_from={{s3gan}}"),
    Run("rolled_back", "s3gan.train", f"{SUPERVISED} {SICK}"),
    Run("pool", "s3gan.generate", "run={s3gan}"),
    Run("pool_two", "s3gan.generate", "run={s3gan}", processes=2),
    Run("pool_filtered", "s3gan.generate", "run={s3gan} keep_score=0.5 calibration=20 truncation=1"),
    Run("pool_clusters", "s3gan.generate", "run={self_conditioned} balance=table"),
    Run("export", "s3gan.export"),
    Run("pool_scores", "s3gan.evaluate", "pool={pool}"),
    Run("refiner", "simgan.train"),
    Run("refiner_stopped", "simgan.train", stopped=True),
    Run("refiner_two", "simgan.train", processes=2),
    Run("refiner_accumulate", "simgan.train", "accumulate=2 noise=1 psi=gradient precision=bf16"),
    Run("refiner_auto", "simgan.train", AUTO),
    Run("refiner_image", "simgan.train", "verdict=global", renamed="discriminator=image"),
    Run("refiner_rolled_back", "simgan.train", SICK_REFINER),
    Run("refiner_eyes", "simgan.train", EYES),
    Run("refiner_hands", "simgan.train", HANDS),
    Run("refined", "simgan.refine", "run={refiner} synthetic={printed}/train"),
    Run("refined_eyes", "simgan.refine", "run={refiner_eyes} synthetic={eyes}/train"),
    Run("refiner_scores", "simgan.evaluate", "run={refiner}"),
    Run("mixture", "cluster_jobs.mix", "share_real=0.4 share_gan=0.3 share_refined=0.3 count=100"),
)


def joined(parts: Iterable[tuple[str, Any, Any, bytes]]) -> bytes:
    """Tensors by name, in sorted order: type, shape and values."""
    return b"".join(f"{name} {kind} {list(shape)} ".encode() + data for name, kind, shape, data in sorted(parts))


def tensors(path: Path) -> bytes:
    """What a safetensors file holds; its header has no fixed order."""
    return joined((name, of["dtype"], of["shape"], bytes(of["data"])) for name, of in deserialize(path.read_bytes()))


def scripted(path: Path) -> bytes:
    """The weights in a TorchScript file, which holds code besides."""
    weights = torch.jit.load(path).state_dict().items()
    return joined((name, value.dtype, value.shape, value.numpy().tobytes()) for name, value in weights)


def state(path: Path) -> bytes:
    """What a checkpoint holds beside tensors, in sorted order: learning rates, steps, health."""

    def in_order(tree: dict) -> dict:
        return {"dict": sorted(tree["dict"], key=lambda item: str(item[0]))} if "dict" in tree else tree

    return json.dumps(json.loads(path.read_text(), object_hook=in_order)["state"]).encode()


def metrics(path: Path) -> bytes:
    """All lines, without the speeds, and without the scores of refiners that older versions do not make."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if not name.startswith(UNCOMPARED)} for line in lines]
    return json.dumps([line for line in kept if set(line) > {"nimg"}], sort_keys=True).encode()


def table(path: Path) -> bytes:
    return json.dumps(pq.read_table(path).to_pydict()).encode()


PARTS: dict[str, tuple[str, Callable[[Path], bytes]]] = {  # files that a command leaves, and what of them counts
    "weights": ("checkpoints/*.safetensors", tensors),
    "state": ("checkpoints/*.json", state),
    "metrics": ("metrics.jsonl", metrics),
    "samples": ("samples/*.png", Path.read_bytes),
    "health": ("report/health.json", Path.read_bytes),
    "clusters": ("clusters/*.parquet", table),
    "exported": ("export/*.pt", scripted),
    "network": ("*.safetensors", tensors),
    "table": ("*.parquet", table),
    "arrays": ("*.np[yz]", Path.read_bytes),
    "shards": ("**/*.tar", Path.read_bytes),
    "scores": ("scores.json", Path.read_bytes),
}


def digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of every part that is there; of checkpoints that of the newest."""
    found = {}
    for name, (pattern, read) in PARTS.items():
        paths = sorted(directory.glob(pattern))[-1 if pattern.startswith("checkpoints/") else 0 :]
        content = b"".join(str(path.relative_to(directory)).encode() + read(path) for path in paths)
        if paths:
            found[name] = hashlib.sha256(content).hexdigest()
    return found


class Bench:
    """The runs in one temporary directory, each after those that it needs."""

    def __init__(self, repository: Path, directory: Path) -> None:
        self.repository, self.directory = repository, directory
        self.ended: dict[str, Future[dict[str, str]]] = {}

    def run_all(self, runs: Iterable[Run]) -> dict[str, dict[str, str]]:
        """The digests of runs, which stand in an order in which each can be made."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for run in runs:
                self.ended[run.name] = pool.submit(self.perform, run)
        return {name: future.result() for name, future in self.ended.items()}

    def perform(self, run: Run) -> dict[str, str]:
        """Makes one run; returns its digests, none where it or one that it needs failed."""
        if not all(self.ended[name].result() for name in run.needs):
            return {}
        here, log, begin = self.directory / run.name, self.directory / f"{run.name}.log", time.perf_counter()
        if run.stopped:
            here.mkdir()
            (here / "STOP").touch()
        codes = [self.execute(run, run.own, log) for _ in range(1 + run.stopped)]
        if run.renamed and codes == [EXIT_USER]:
            codes = [self.execute(run, run.renamed, log)]
        well = codes == [EXIT_PREEMPTED] * run.stopped + [EXIT_DONE]
        told = "" if well else f"FAILED with {codes}\n{log.read_text()[-2000:]}"
        print(f"{run.name:24} {time.perf_counter() - begin:5.1f} s {told}", flush=True)
        return digests(here) if well else {}

    def execute(self, run: Run, own: str, log: Path) -> int:
        """Runs a command to its end; returns the exit code."""
        places = {each.name: self.directory / each.name for each in RUNS}
        words = f"{COMMON[run.module]} {own}".format(**places, here=self.directory / run.name).split()
        launcher = LAUNCH_TWO.format(port=free_port()).split() if run.processes == 2 else []
        command = [sys.executable, "-m", *launcher, run.module, *words]
        env = {**os.environ, "PYTHONPATH": str(self.repository), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        with log.open("ab") as output:
            return subprocess.run(command, cwd=self.repository, env=env, stdout=output, stderr=output).returncode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def chosen(only: list[str]) -> list[Run]:
    """The runs of these names with all that they need; without names all runs."""
    wanted = set(only) or {run.name for run in RUNS}
    for run in reversed(RUNS):
        wanted |= run.needs if run.name in wanted else set()
    return [run for run in RUNS if run.name in wanted]


def measure(out: Path, repository: Path, only: list[str]) -> int:
    """Writes the digests by name; returns the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        found = Bench(repository.resolve(), Path(directory)).run_all(chosen(only))
    rows = {f"{name} {part}": digest for name, parts in found.items() for part, digest in parts.items()}
    out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{out}: {len(rows)} digests of {len(found)} runs")
    return int(not all(found.values()))


def compare(before: Path, after: Path) -> int:
    """Prints a line for each digest; returns 1 where one differs or is missing."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    verdicts = {
        name: "MISSING" if name not in old or name not in new else "the same" if old[name] == new[name] else "DIFFERENT"
        for name in old | new
    }
    print("\n".join(f"{name:40} {verdict}" for name, verdict in verdicts.items()))
    return int(set(verdicts.values()) != {"the same"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the runs and write their digests")
    run.add_argument("--out", type=Path, required=True, help="JSON file to write")
    run.add_argument("--repository", type=Path, default=REPOSITORY, help="whose commands to run")
    run.add_argument("--only", nargs="+", default=[], choices=[each.name for each in RUNS], help="these runs")
    both = commands.add_parser("compare", help="compare two such files")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    words = parser.parse_args()
    if words.command == "compare":
        return compare(words.before, words.after)
    return measure(words.out, words.repository, words.only)


if __name__ == "__main__":
    sys.exit(main())
