"""Every command that writes a directory or a table refuses, in one line, to write where another one does."""

import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from cluster_jobs import mix
from cluster_jobs.core import lock
from cluster_jobs.data.label_table import read_table
from cluster_jobs.data.shards import Shards
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from tests.held import held
from tests.s3gan.toy_data import CLASSES, make_data, make_table
from tests.s3gan.toy_run import make_run
from tests.s3gan.toy_study import scores, write
from tests.simgan.test_compare import write_scores

SMALL = ["classifier.steps=2", "classifier.batch=12", "classifier.width=2", "threads=1"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read; to be read only."""
    root = tmp_path_factory.mktemp("inputs")
    for split in ("train", "test"):
        shards = make_data(root / "data" / split)
    table = make_table(root / "labels.parquet", shards)
    make_run(root / "run", CLASSES)
    save_encoder(root / "encoder.safetensors", build_encoder("resnet8", 1, 4, seed=1))
    words = [f"real={root}/data/train", f"labels={table}", "share_real=1", "count=24", "near=-1", "workers=0"]
    assert mix.main([*words, f"out={root}/mixes/budget/0"]) == 0
    write(root / "study", "supervised", 0, scores(2.0))
    write_scores(root / "scores" / "paper" / "0", 6.0, False)
    assert len(read_table(table)) == len(Shards(root / "data" / "train"))
    return root


COMMANDS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "cluster_jobs.pack": ("out", lambda root: ["source=digits", "workers=0"]),
    "simgan.pack": ("out", lambda root: ["source=printed_digits", "count=4", "workers=0"]),
    "cluster_jobs.mix": ("out", lambda root: [f"gan={root}/mixes/budget/0", "share_gan=1", "count=3", "workers=0"]),
    "cluster_jobs.turing": ("out", lambda root: [f"real={root}/data/test", f"fake={root}/data/train", "count=2"]),
    "s3gan.generate": ("out", lambda root: [f"run={root}/run", "count=4", "threads=1"]),
    "s3gan.export": ("out", lambda root: [f"pool={root}/data/train"]),
    "s3gan.evaluate": ("out", lambda root: [f"run={root}/run", f"data={root}/data", "count=48", *SMALL]),
    "s3gan.look": ("out", lambda root: [f"run={root}/run", "threads=1"]),
    "s3gan.compare": ("out", lambda root: [f"scores={root}/study"]),
    "s3gan.mixtures": (
        "out",
        lambda root: [f"mixes={root}/mixes", f"data={root}/data", f"budget={root}/labels.parquet", *SMALL],
    ),
    "simgan.compare": ("out", lambda root: [f"scores={root}/scores"]),
    "selfsup.label": ("out.parquet", lambda root: [f"data={root}/data/train", "method=reveal"]),
    "selfsup.features": (
        "out.npy",
        lambda root: [f"data={root}/data/train", f"encoder={root}/encoder.safetensors", "threads=1"],
    ),
}
FILES = ("s3gan.export", "selfsup.label", "selfsup.features")  # their outputs appear whole, with a lock beside them


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_writer_is_refused_and_writes_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.0)
    name, words = COMMANDS[command]
    out = tmp_path / "new" / name
    with held(out, file=command in FILES) as process:
        before = sorted(out.parent.rglob("*"))
        assert import_module(command).main([*words(inputs), f"out={out}"]) == 2
        assert sorted(out.parent.rglob("*")) == before
    refusal = f"{command}: error: out={str(out)!r} is in use by process {process} on {socket.gethostname()}"
    assert capsys.readouterr().err.strip().splitlines()[-1] == refusal
