"""Scores of a refiner in training: lower for images nearer to the real ones, none where R leaves its input behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster_jobs.cli.config import RunKeys
from cluster_jobs.core.errors import DamagedSample
from cluster_jobs.core.seeds import is_validation
from cluster_jobs.data.shards import Shards
from cluster_jobs.training.checkpoint import CheckpointStore, load_state
from cluster_jobs.training.run import Run
from simgan.networks.refiner import Refiner
from simgan.training.config import RefinerTrainConfig
from simgan.training.sample_sheet import save_sheet
from simgan.training.validation import RefinerValidation, open_validation
from tests.processes import fork, fork_ranks
from tests.simgan.domains import train_words, write_domain

GREY = 160  # the real domain's white, of 255


class Dims(torch.nn.Module):
    """A refiner that makes white of 255 a white of `white`."""

    def __init__(self, white: float) -> None:
        super().__init__()
        self.white = white

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) * self.white / 255 - 1


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Simulated and real shards of 300 images each, about fifteen of them validation."""
    directory = tmp_path_factory.mktemp("domains")
    synthetic = write_domain(directory / "synthetic", (300,))
    return synthetic, write_domain(directory / "real", (300,), seed=1, grey=GREY)


def validation(domains: tuple[Path, Path], run: Path, **keys: object) -> RefinerValidation:
    config = RefinerTrainConfig(
        run=RunKeys(dir=str(run)),
        synthetic=str(domains[0]),
        real=str(domains[1]),
        threads=1,
        watchdog_seconds=0,
        **keys,
    )
    opened = open_validation(Run(config), Shards(domains[0]), Shards(domains[1]), None)
    assert opened is not None
    return opened


def test_a_refiner_that_does_what_the_domains_differ_in_scores_best(domains: tuple[Path, Path], tmp_path: Path) -> None:
    judged = validation(domains, tmp_path / "run")
    scores = {white: judged.score(Dims(white), 0).value for white in (255, 220, GREY, 120)}  # type: ignore
    assert min(scores, key=scores.__getitem__) == GREY and scores[255] > 2 * scores[GREY] and scores[220] < scores[255]


def test_a_refiner_that_leaves_its_input_behind_has_no_score(domains: tuple[Path, Path], tmp_path: Path) -> None:
    judged = validation(domains, tmp_path / "run", max_change=0.01)
    assert judged.score(Dims(GREY), 0) is None
    assert judged.score(Dims(255), 0) is not None


def test_the_validation_part_of_both_domains_is_compared_and_no_other_image(
    domains: tuple[Path, Path], tmp_path: Path
) -> None:
    judged = validation(domains, tmp_path / "run")
    shards = Shards(domains[0])
    expected = [shards.image(index) for index, key in enumerate(shards.keys()) if is_validation(key)]
    assert np.array_equal(judged.synthetic, np.stack(expected))
    assert len(judged.real) == sum(map(is_validation, Shards(domains[1]).keys()))


@pytest.mark.slow
def test_a_run_attaches_scores_to_checkpoints_that_two_ranks_agree_on(
    domains: tuple[Path, Path], tmp_path: Path
) -> None:
    keys = {"eval_nimg": 24, "checkpoint_nimg": 40, "total_nimg": 48}
    assert fork(tmp_path / "log", "simgan.train", *train_words(*domains, tmp_path / "one", **keys)).code == 0
    ends = fork_ranks(tmp_path / "log2", "simgan.train", *train_words(*domains, tmp_path / "two", **keys))
    assert [end.code for end in ends] == [0, 0], [end.output for end in ends]
    scores = []
    for run in ("one", "two"):
        paths = CheckpointStore(tmp_path / run / "checkpoints").paths()
        scores.append({path.stem: load_state(path)[1]["score"] for path in paths})
        assert [nimg for nimg, score in scores[-1].items() if score is not None] == ["000000000024", "000000000048"]
        lines = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        assert {f"{line['nimg']:012d}" for line in lines if any("_val" in name for name in line)} == {
            "000000000024",
            "000000000048",
        }
    for nimg in ("000000000024", "000000000048"):
        assert scores[0][nimg] == pytest.approx(scores[1][nimg], rel=1e-3)


def test_domains_with_next_to_no_validation_images_are_trained_on_without_scores(
    synthetic: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [sum(map(is_validation, Shards(directory).keys())) for directory in (synthetic, real)]
    assert min(few) < 2
    config = RefinerTrainConfig(
        run=RunKeys(dir=str(tmp_path / "run")), synthetic=str(synthetic), real=str(real), threads=1, watchdog_seconds=0
    )
    assert open_validation(Run(config), Shards(synthetic), Shards(real), None) is None
    assert f"{few[0]} simulated and {few[1]} real images" in capsys.readouterr().out


def test_no_scores_are_made_where_none_are_wanted(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RefinerTrainConfig(
        run=RunKeys(dir=str(tmp_path / "run")),
        synthetic=str(domains[0]),
        real=str(domains[1]),
        threads=1,
        watchdog_seconds=0,
        eval_count=0,
    )
    config.check()
    assert open_validation(Run(config), Shards(domains[0]), Shards(domains[1]), None) is None
    assert "no scores during training: eval_count=0" in capsys.readouterr().out


def test_a_damaged_image_of_the_sample_sheet_is_replaced_where_that_is_asked_for(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(domains[0], tmp_path / "damaged")
    shards = Shards(tmp_path / "damaged")
    offset, size = (int(shards._members[0][f"image_{name}"]) for name in ("offset", "size"))
    with open(tmp_path / "damaged" / "000000.tar", "r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(size))
    device, real = torch.device("cpu"), Shards(domains[1])
    with pytest.raises(DamagedSample):
        save_sheet(tmp_path / "sheet.png", Refiner(1, width=2, blocks=1), shards, real, device, "fatal")
    save_sheet(tmp_path / "sheet.png", Refiner(1, width=2, blocks=1), shards, real, device, "replace")
    assert (tmp_path / "sheet.png").is_file() and "replaced" in "".join(capsys.readouterr())
