"""Every training command goes on with another number of processes: the same samples, weights equal up to rounding."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cluster_jobs.training.run import load_run
from tests.processes import Forked, start_ranks
from tests.s3gan.toy_data import make_data, make_table
from tests.simgan.domains import train_words, write_domain

pytestmark = pytest.mark.cluster
FROZEN = ["checkpoint_nimg=1000", "sample_nimg=1000", "eval_nimg=1000", "threads=1", "precision=no"]
BATCH = 16


def pretrain(root: Path) -> tuple[str, list[str], str]:
    shards = make_data(root / "train")
    small = ["width=4", "lr=1e-3", "warmup_nimg=64", "ema_nimg=64", f"batch={BATCH}", f"log_nimg={BATCH}"]
    return "selfsup.pretrain", [f"data={shards.directory}", "task=rotation", *small, *FROZEN], "model"


def gan(root: Path) -> tuple[str, list[str], str]:
    """With a rotation loss: the images that are turned must not depend on the number of processes either."""
    shards = make_data(root / "train")
    table = make_table(root / "table.parquet", shards)
    small = ["network=biggan_light", "method=s3gan", "rotated_batch_fraction=1", "width=2"]
    small += [f"batch={BATCH}", f"log_nimg={BATCH}"]
    return "s3gan.train", [f"data={shards.directory}", f"labels={table}", *small, *FROZEN], "discriminator"


def refiner(root: Path) -> tuple[str, list[str], str]:
    synthetic = write_domain(root / "synthetic", (20, 9, 19), seed=0, grey=90)
    real = write_domain(root / "real", (20, 9, 19), seed=1, grey=160)
    words = [word for word in train_words(synthetic, real, root / "run") if not word.startswith("run.dir=")]
    chosen = {word.partition("=")[0]: word for word in [*words, *FROZEN, f"batch={BATCH}", f"log_nimg={BATCH}"]}
    return "simgan.train", list({**chosen, "history": "history=32"}.values()), "refiner"


def losses(run: Path) -> list[dict[str, float]]:
    """The losses of each step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "loss" in name} for line in lines]


@pytest.mark.parametrize("prepare", [pretrain, gan, refiner])
def test_one_process_then_two_then_one_train_what_one_trains(
    prepare: Callable[[Path], tuple[str, list[str], str]], tmp_path: Path
) -> None:
    """The loss of every step says that it saw the same samples: from step to step it moves a hundred times as far."""
    module, words, part = prepare(tmp_path)
    whole, run = tmp_path / "whole", tmp_path / "elastic"
    assert Forked(tmp_path / "log", module, *words, "total_nimg=96", f"run.dir={whole}").ended(240).code == 0
    for processes, total in ((1, 32), (2, 64), (1, 96)):
        life = (module, *words, f"total_nimg={total}", f"run.dir={run}")
        ranks = [Forked(tmp_path / "log", *life)] if processes == 1 else start_ranks(tmp_path / "log", *life)
        for ended in [rank.ended(240) for rank in ranks]:
            assert ended.code == 0, ended.output
    straight, elastic = losses(whole), losses(run)
    assert len(straight) == len(elastic) == 96 // BATCH
    errors = [abs(a[name] - b[name]) for a, b in zip(straight, elastic, strict=True) for name in a.keys() & b.keys()]
    moves = [abs(a[name] - b[name]) for a, b in itertools.pairwise(straight) for name in a.keys() & b.keys()]
    assert len(errors) >= 96 // BATCH and max(errors) < max(moves) / 100
    mine, theirs = load_run(run)[1][part], load_run(whole)[1][part]
    for name, weight in theirs.items():
        torch.testing.assert_close(
            mine[name], weight, rtol=2e-3, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
