"""Every command that writes a directory or a table refuses, in one line, to write where another one does.

What is finished it looks at all the same. simgan.refine and simgan.evaluate need a trained run: tests/simgan/
test_refine.py.
"""

import errno
import os
import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cluster_jobs import mix
from cluster_jobs.core import lock
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.label_table import read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.packing import engine
from cluster_jobs.pipelines.stage_records import locked
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
    "selfsup.probe": ("out", lambda root: [f"data={root}/data", f"encoder={root}/encoder.safetensors", "threads=1"]),
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


FINISHED = {  # commands that leave alone what they have finished, and what they say then
    "cluster_jobs.pack": "is already finished",
    "simgan.pack": "is already finished",
    "cluster_jobs.mix": "is finished: 3 images",
    "s3gan.generate": "is finished: 4 images",
    "s3gan.export": "is finished: 48 images",
    "s3gan.evaluate": "fd_classifier48",
    "selfsup.label": "is finished: 6 labels",
}


def files_below(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("command", FINISHED)
def test_what_is_finished_is_only_looked_at_while_another_process_holds_it_or_where_nobody_may_write(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    name, words = COMMANDS[command]
    out, opened, main = tmp_path / "new" / name, os.open, import_module(command).main
    assert main([*words(inputs), f"out={out}"]) == 0
    before = files_below(out.parent)

    def look() -> None:
        capsys.readouterr()
        assert main([*words(inputs), f"out={out}"]) == 0
        assert FINISHED[command] in capsys.readouterr().out and files_below(out.parent) == before

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:  # tests may run as root, whom no mode bit keeps out
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **named)

    with held(out, file=command in FILES):
        look()
    monkeypatch.setattr(os, "open", refuse)
    look()


def test_the_sources_of_a_finished_pack_are_read_without_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked_out: list[bool] = []
    read = engine.read_state

    def read_and_note(*arguments: Any) -> dict[str, Any]:
        locked_out.append((tmp_path / "out" / ".writing.lock").exists())
        return read(*arguments)

    monkeypatch.setattr(engine, "read_state", read_and_note)
    for _ in range(2):
        assert import_module("cluster_jobs.pack").main(["source=digits", "workers=0", f"out={tmp_path}/out"]) == 0
    assert locked_out == [True, False]


def test_an_empty_directory_that_another_process_exports_to_is_not_finished(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.0)
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out", file=True):
        words = COMMANDS["s3gan.export"][1](inputs)
        assert import_module("s3gan.export").main([*words, f"out={tmp_path}/out"]) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_a_command_that_writes_into_the_root_of_a_pipeline_lets_no_second_submit_in(tmp_path: Path) -> None:
    with locked(tmp_path):
        with OutputDirectory(tmp_path).locked():
            pass
        with pytest.raises(UserError, match="another submit"), locked(tmp_path):
            pass
