"""compile=true in the three training commands: names of the state, exact resume, ranks, and failure. Compiling takes
minutes, so these tests run with the cluster's.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.training.run import load_run
from tests.processes import Forked, launch, start_ranks
from tests.s3gan.toy_data import make_data, make_table
from tests.selfsup.toy_shards import make_shards
from tests.simgan.domains import train_words, write_domain

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled kernels go to a directory of the tests."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor"))}


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("domains")
    return write_domain(directory / "synthetic"), write_domain(directory / "real", (9, 11), seed=1, grey=160)


def run_forked(log: Path, module: str, words: Sequence[str], env: dict[str, str], processes: int = 1) -> None:
    """Runs a command to a good end, with the patience that compiling needs."""
    started = [Forked(log, module, *words, env=env)] if processes == 1 else start_ranks(log, module, *words, env=env)
    ends = [process.ended(timeout=900) for process in started]
    assert [end.code for end in ends] == [0] * processes, ends[0].output


def test_a_compiled_refiner_keeps_its_names_resumes_exactly_and_trains_alike(
    tmp_path: Path, domains: tuple[Path, Path], cache: dict[str, str]
) -> None:
    def words(name: str, **keys: object) -> list[str]:
        return train_words(*domains, tmp_path / name, **keys)

    run_forked(tmp_path / "log", "simgan.train", words("plain"), {})
    run_forked(tmp_path / "log", "simgan.train", words("whole", compile="true"), cache)
    for total in (40, 80):
        run_forked(tmp_path / "log", "simgan.train", words("halves", compile="true", total_nimg=total), cache)
    run_forked(tmp_path / "log", "simgan.train", words("ranks", compile="true"), cache, processes=2)
    last = "checkpoints/000000000080.safetensors"
    assert (tmp_path / "halves" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
    assert list(Path(cache["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so"))  # it was compiled
    plain, whole, ranks = (load_run(tmp_path / name)[1] for name in ("plain", "whole", "ranks"))
    for part in ("refiner", "discriminator", "refiner_ema"):
        assert plain[part].keys() == whole[part].keys()
        for name, weight in plain[part].items():
            torch.testing.assert_close(whole[part][name], weight, rtol=0, atol=2e-3)
            torch.testing.assert_close(ranks[part][name], weight, rtol=0, atol=2e-3)


@pytest.mark.parametrize("keys", [[], ["precision=bf16", "accumulate=2", "rotated_batch_fraction=2"]])
def test_a_compiled_gan_resumes_exactly(tmp_path: Path, cache: dict[str, str], keys: list[str]) -> None:
    table = make_table(tmp_path / "table.parquet", make_data(tmp_path / "train"))
    tiny = [
        "network=biggan_light",
        "width=2",
        "batch=16",
        "log_nimg=16",
        "checkpoint_nimg=32",
        "sample_nimg=1000",
        "threads=1",
        "compile=true",
    ]

    def words(name: str, total: int) -> list[str]:
        inputs = [f"data={tmp_path / 'train'}", f"labels={table}", f"run.dir={tmp_path / name}"]
        return [*inputs, *tiny, *keys, f"total_nimg={total}"]

    run_forked(tmp_path / "log", "s3gan.train", words("whole", 96), cache)
    for total in (32, 96):
        run_forked(tmp_path / "log", "s3gan.train", words("halves", total), cache)
    last = "checkpoints/000000000096.safetensors"
    assert (tmp_path / "halves" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
    _, state, _ = load_run(tmp_path / "whole")
    assert not any("_orig_mod" in name for part in ("generator", "discriminator") for name in state[part])
    assert torch.jit.load(tmp_path / "whole" / "export" / "generator.pt") is not None


@pytest.mark.parametrize(("processes", "keys"), [(1, []), (2, []), (1, ["precision=bf16", "accumulate=2"])])
def test_a_compiled_encoder_learns_rotation(
    tmp_path: Path, cache: dict[str, str], processes: int, keys: list[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 60, (190, 1, 8, 8)).astype(np.uint8)
    images[:, :, :4] += 150
    data = make_shards(tmp_path / "sky", [100, 90], [None] * 190, images=images).directory
    words = [f"data={data}", "task=rotation", f"run.dir={tmp_path / 'run'}", "width=4", "batch=16", "lr=0.01"]
    words += ["warmup_nimg=64", "ema_nimg=64", "total_nimg=640", "threads=1", "shift=1", "compile=true", *keys]
    run_forked(tmp_path / "log", "selfsup.pretrain", words, cache, processes)
    row = json.loads((tmp_path / "run" / "report" / "pretrain.json").read_text())["table"]["rows"][0]
    assert float(row[3]) > 0.9  # held-out accuracy


def test_where_nothing_can_compile_the_run_ends_with_one_line(
    tmp_path: Path, domains: tuple[Path, Path], cache: dict[str, str]
) -> None:
    words = train_words(*domains, tmp_path / "run", compile="true")
    env = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    ended = launch("simgan.train", *words, env=env, timeout=900)
    assert ended.code == 2, ended.output
    lines = [line for line in ended.output.splitlines() if not line.startswith(("memory of", "no scores"))]
    assert len(lines) == 1 and "compile=true: torch.compile failed" in lines[0] and "compile=false" in lines[0]
