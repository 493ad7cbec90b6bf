"""Every published recipe composes, says what to expect, and builds the paper's networks at the size that it is for."""

import math
from pathlib import Path

import pytest
import torch

import simgan.conf
from cluster_jobs.cli.config import parse
from simgan.networks import discriminator, refiner
from simgan.simulators.hands import draw
from simgan.training.config import RefinerTrainConfig
from simgan.training.game import RefinerGame, make_networks, make_schedule
from simgan.training.history import History
from simgan.training.step import discriminator_step, refiner_step

FOLDER = Path(__file__).parents[3] / "simgan" / "conf" / "recipe"
MADE_FOR = {  # height, width; patches of D, what each sees; what a pixel of R sees; steps of the warm-ups
    "gaze_mpiigaze": ((35, 55), (9, 14), 23, 19, (1000, 200)),
    "hand_nyu": ((224, 224), (7, 7), 71, 47, (500, 200)),
}


def compose(name: str) -> RefinerTrainConfig:
    words = [f"+recipe={name}", "synthetic=nowhere", "real=nowhere", "run.dir=nowhere"]
    return parse(RefinerTrainConfig, words, simgan.conf.__name__)


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MADE_FOR)


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_recipe_composes_and_builds_the_papers_networks(name: str) -> None:
    size, patches, seen_by_d, seen_by_r, warm = MADE_FOR[name]
    config = compose(name)
    config.check()
    with torch.device("meta"):
        r, d = make_networks(config, (1, *size))
        refined = r(torch.zeros(1, 1, *size))
        assert refined.shape == (1, 1, *size) and d(refined).shape == (1, *patches)
    assert discriminator.receptive_field(config.patches.name) == seen_by_d
    assert refiner.receptive_field(blocks=config.blocks, stem=config.stem, fold=config.fold) == seen_by_r
    schedule = make_schedule(config)
    assert (schedule.warm_refiner, schedule.warm_discriminator) == warm  # type: ignore[union-attr]


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_recipe_says_what_to_expect_whence_and_on_what_hardware(name: str) -> None:
    comments = "\n".join(line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#"))
    assert all(word in comments for word in ("Expected", "Source", "Hardware", "Hours", "[mem]"))


@pytest.mark.cluster
def test_the_papers_hand_networks_take_a_step_each_on_hands_of_224_pixels() -> None:
    config, shape = compose("hand_nyu"), (1, 224, 224)
    refiner, discriminator = (player.to(memory_format=torch.channels_last) for player in make_networks(config, shape))
    r, d = (torch.optim.Adam(player.parameters(), config.lr_r, fused=True) for player in (refiner, discriminator))
    history = History(1, shape, seed=0, device=torch.device("cpu"))
    game = RefinerGame(refiner, discriminator, refiner, discriminator, r, d, history, config.regularisation)
    synthetic, real = (
        torch.from_numpy(draw(224, 0, "train", domain, range(2))[0]) / 127.5 - 1 for domain in ("simulator", "camera")
    )
    told = discriminator_step(game, synthetic, real, 0)
    assert float(told["loss/d"]) == pytest.approx(math.log(2), rel=0.1) and history.filled == 1
    told = refiner_step(game, synthetic[:1], adversarial=True)
    assert float(told["loss/change"]) == 0 and float(told["loss/adversarial"]) < 49 * 2 * math.log(2)
    with torch.no_grad():
        change = (refiner(synthetic[:1]) - synthetic[:1]).abs()
    assert 0 < change.mean() < 0.2 and change.isfinite().all()  # R began as the identity
