"""Every published recipe composes, says what to expect, and its networks can be built at the size that it is for."""

from pathlib import Path

import pytest
import torch

import s3gan.conf
from cluster_jobs.cli.config import parse
from s3gan.methods import METHODS
from s3gan.networks import NETWORKS
from s3gan.training.config import TrainConfig
from s3gan.training.game import head_plan, make_heads

FOLDER = Path(__file__).parents[3] / "s3gan" / "conf" / "recipe"
MADE_FOR = {  # size in pixels, channels, classes
    "imagenet128_compare_gan": (128, 3, 1000),
    "imagenet128_paper": (128, 3, 1000),
    "imagenet256": (256, 3, 1000),
    "cifar10": (32, 3, 10),
    "fashion_mnist": (32, 1, 10),
    "r3gan": (32, 3, 10),
}


def compose(name: str) -> TrainConfig:
    words = [f"+recipe={name}", "data=nowhere", "labels=nowhere.parquet", "run.dir=nowhere"]
    return parse(TrainConfig, words, s3gan.conf.__name__)


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MADE_FOR)


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_recipe_composes_and_its_networks_make_and_judge_an_image(name: str) -> None:
    config = compose(name)
    config.check()
    size, channels, classes = MADE_FOR[name]
    network, method = NETWORKS[config.network.name], METHODS[config.method.name]
    plan = head_plan(config, method, make_heads(config, method, ranks=1), classes)
    with torch.device("meta"):
        of = size, channels, classes, config.width
        generator = network.generator(*of, normalise=False, embedding_std=config.embedding_std)
        discriminator = network.discriminator(*of, plan, normalise=False)
        labels = torch.zeros(2, dtype=torch.int64)
        images = generator(torch.zeros(2, generator.z_dim), labels)
        judged = discriminator(images, labels)
    assert images.shape == (2, channels, size, size)
    assert judged.auxiliary["rotation"].shape == (2, 4) and judged.score.shape == (2,)


@pytest.mark.parametrize("name", MADE_FOR)
def test_a_recipe_says_what_score_to_expect_and_on_what_hardware(name: str) -> None:
    comments = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert any("Expected" in line for line in comments) and any("Hardware" in line for line in comments)


def test_the_two_readings_of_the_paper_differ_in_rates_and_length_only() -> None:
    paper, public = compose("imagenet128_paper"), compose("imagenet128_compare_gan")
    assert (paper.g_lr, paper.d_lr, public.g_lr, public.d_lr) == (5e-5, 2e-4, 1e-4, 5e-4)
    assert paper.total_nimg == 2 * public.total_nimg
    for name, value in vars(paper).items():
        assert name in ("g_lr", "d_lr", "total_nimg") or value == getattr(public, name), name
