import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from cluster_jobs.core import lock
from cluster_jobs.data.shards import Shards
from simgan.networks.trained_refiner import load_refiner, refine_images
from tests.held import held
from tests.processes import fork, fork_ranks

pytestmark = pytest.mark.slow


def refine(tmp_path: Path, run: Path, synthetic: Path, name: str = "pool", *words: str) -> Path:
    pool = tmp_path / name
    ended = fork(tmp_path / "log", "simgan.refine", f"run={run}", f"synthetic={synthetic}", f"out={pool}", *words)
    assert ended.code == 0, ended.output
    return pool


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_pool_has_the_keys_labels_and_annotations_of_the_synthetic_images(
    tmp_path: Path, trained: Path, synthetic: Path
) -> None:
    pool, before = Shards(refine(tmp_path, trained, synthetic)), Shards(synthetic)
    assert pool.keys() == before.keys() and pool.classes == before.classes
    assert np.array_equal(pool.hidden_labels(), before.hidden_labels())
    assert [pool.annotation(i) for i in range(30)] == [before.annotation(i) for i in range(30)]
    assert any(not np.array_equal(pool.image(i), before.image(i)) for i in range(30))
    facts = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert facts["counts"] == {str(digit): 3 for digit in range(10)} and facts["checkpoint"]["nimg"] == 80


def test_two_processes_write_the_bytes_of_one(tmp_path: Path, trained: Path, synthetic: Path) -> None:
    one = refine(tmp_path, trained, synthetic)
    two = tmp_path / "two"
    words = [f"run={trained}", f"synthetic={synthetic}", f"out={two}"]
    ranks = fork_ranks(tmp_path / "ranks", "simgan.refine", *words)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].output
    assert contents(two) == contents(one)


def test_a_pool_that_was_cut_short_is_finished_with_the_same_bytes(
    tmp_path: Path, trained: Path, synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simgan import refine as module
    from simgan.refine import RefineConfig, main

    whole, cut = contents(refine(tmp_path, trained, synthetic)), tmp_path / "cut"
    config = RefineConfig(run=str(trained), synthetic=str(synthetic), out=str(cut))
    write = module.write_shard
    written: list[int] = []

    def write_one(directory: Path, number: int, samples: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(number)
        write(directory, number, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        main.body(config)
    assert (cut / "000000.tar").is_file() and not (cut / "index.json").exists()
    stamp = (cut / "000000.tar").stat().st_mtime_ns
    monkeypatch.setattr(module, "write_shard", write)
    main.body(config)
    assert (cut / "000000.tar").stat().st_mtime_ns == stamp  # not made again
    assert contents(cut) == whole


def test_another_checkpoint_for_the_same_pool_is_refused(tmp_path: Path, trained: Path, synthetic: Path) -> None:
    pool = refine(tmp_path, trained, synthetic)
    words = [f"run={trained}", f"synthetic={synthetic}", f"out={pool}"]
    earlier = trained / "checkpoints" / "000000000040.safetensors"
    ended = fork(tmp_path / "log", "simgan.refine", *words, f"checkpoint={earlier}")
    assert ended.code == 2 and "choose another out" in ended.output
    again = fork(tmp_path / "log", "simgan.refine", *words)
    assert again.code == 0 and "finished" in again.output


def test_refined_images_do_not_depend_on_what_is_refined_with_them(trained: Path, synthetic: Path) -> None:
    import torch

    device = torch.device("cpu")
    refiner, _ = load_refiner(str(trained), "last", device)
    images = np.stack([Shards(synthetic).image(index) for index in range(30)])
    assert np.array_equal(refine_images(refiner, images, device)[7:9], refine_images(refiner, images[7:9], device))


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path, synthetic: Path) -> None:
    ended = fork(tmp_path / "log", "simgan.refine", f"run={tmp_path}", f"synthetic={synthetic}", f"out={tmp_path}/p")
    assert ended.code == 2 and "is no run directory" in ended.output and not (tmp_path / "p").exists()


def test_the_real_images_of_the_run_are_refused_since_their_labels_may_be_hidden(
    tmp_path: Path, trained: Path, real: Path
) -> None:
    ended = fork(tmp_path / "log", "simgan.refine", f"run={trained}", f"synthetic={real}", f"out={tmp_path}/p")
    assert ended.code == 2 and "holds the real images" in ended.output and not (tmp_path / "p").exists()


def test_a_refined_pool_says_what_made_the_pool_that_was_refined(
    tmp_path: Path, trained: Path, synthetic: Path
) -> None:
    first = refine(tmp_path, trained, synthetic)
    second = refine(tmp_path, trained, first, "second")
    one, two = (json.loads((pool / "pool.json").read_text()) for pool in (first, second))
    assert one["synthetic_pool"] is None and two["synthetic_pool"] == one


def test_a_finished_pool_is_only_looked_at_while_another_process_holds_it(
    tmp_path: Path, trained: Path, synthetic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = refine(tmp_path, trained, synthetic)
    before = contents(pool)
    with held(pool):
        words = [f"run={trained}", f"synthetic={synthetic}", f"out={pool}"]
        assert import_module("simgan.refine").main(words) == 0
    assert f"{pool} is finished: 30 images" in capsys.readouterr().out and contents(pool) == before


@pytest.mark.parametrize("command", ["refine", "evaluate"])
def test_a_second_writer_is_refused(
    tmp_path: Path,
    trained: Path,
    synthetic: Path,
    real: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setattr(lock, "SAME_MACHINE_SECONDS", 0.0)
    words = [f"run={trained}", f"synthetic={synthetic}"]
    if command == "evaluate":
        for name, shards in (("synthetic", synthetic), ("real", real)):
            for split in ("train", "test"):
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / split).symlink_to(shards)
        words = [f"run={trained}", f"synthetic={tmp_path}/synthetic", f"real={tmp_path}/real", "task=folder"]
    out = tmp_path / "out"
    with held(out) as process:
        assert import_module(f"simgan.{command}").main([*words, f"out={out}"]) == 2
        assert f"out={str(out)!r} is in use by process {process} on " in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == [".writing.lock"]
