"""A further auxiliary head is one object and one line in a table: no step, game or network knows of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan import train
from s3gan.auxiliary import AUXILIARY
from s3gan.auxiliary.base import AuxiliaryHead, DiscriminatorPass, GeneratorPass, Term
from s3gan.inference.loading import load_discriminator
from s3gan.methods import METHODS
from s3gan.networks.layers import iterate_spectral_norm
from s3gan.training.config import TrainConfig
from s3gan.training.game import make_heads
from s3gan.training.step import discriminator_step, generator_step
from tests.s3gan.toy_data import TINY, make_data, make_table
from tests.s3gan.training.test_step import BATCH, make_game, real_batch

LAST = "000000000064.safetensors"


@dataclass(frozen=True)
class Brightness(AuxiliaryHead):
    """D learns the mean brightness of real images and of flipped copies of two; G is to make fakes that are bright."""

    weight: float = 0.5
    name: ClassVar[str] = "brightness"

    def outputs(self, classes: int) -> int:
        return 1

    def views(self, images: torch.Tensor) -> torch.Tensor:
        return images[:2].flip(3)

    def view_conditions(self, conditions: torch.Tensor) -> torch.Tensor:
        return conditions[:2]

    def discriminator_term(self, seen: DiscriminatorPass) -> Term:
        target = seen.images.mean((1, 2, 3))
        error = torch.cat([seen.real, seen.views]).squeeze(1) - torch.cat([target, target[:2]])
        loss = error.square().mean()
        return Term(loss, self.weight, {"loss/brightness_d": loss})

    def generator_term(self, seen: GeneratorPass) -> Term:
        loss = -torch.cat([seen.fake, seen.views]).mean()
        return Term(loss, self.weight, {"loss/brightness_g": loss})


def test_its_terms_enter_both_losses_beside_those_of_the_other_heads() -> None:
    (images, labels), head = real_batch(), Brightness()
    game, plain = make_game(extra=(head,)), make_game(extra=(Brightness(weight=0.0),))
    for player in ("discriminator", "generator"):
        getattr(plain, player).load_state_dict(getattr(game, player).state_dict())
    with torch.no_grad():
        iterate_spectral_norm(plain.discriminator, 1)
        said = plain.discriminator(torch.cat([images, images[:2].flip(3)]), torch.cat([labels, labels[:2]]))
        target = torch.cat([images, images[:2]]).mean((1, 2, 3))
        expected = (said.auxiliary["brightness"].squeeze(1) - target).square().mean()
    metrics = discriminator_step(game, images, labels, 0)
    torch.testing.assert_close(metrics["loss/brightness_d"], expected)
    assert {"loss/rotation_d", "loss/d"} <= set(metrics)
    assert game.discriminator.heads.brightness.weight.grad.any()
    metrics = generator_step(game, images, labels, BATCH)
    assert {"loss/rotation_g", "loss/brightness_g"} <= set(metrics)
    discriminator_step(plain, images, labels, 0)
    generator_step(plain, images, labels, BATCH)
    assert not torch.equal(game.generator.to_image.weight.grad, plain.generator.to_image.weight.grad)


def test_a_run_with_it_trains_resumes_and_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(config: Any, ranks: int) -> Brightness:
        return Brightness()

    monkeypatch.setitem(AUXILIARY, "brightness", make)
    monkeypatch.setitem(METHODS, "s3gan", replace(METHODS["s3gan"], heads=("rotation", "brightness")))
    table = make_table(tmp_path / "table.parquet", make_data(tmp_path / "train"), origin="inferred")
    words = [f"data={tmp_path / 'train'}", f"labels={table}", "method=s3gan", *TINY]
    for name, lengths in (("whole", [64]), ("resumed", [32, 64])):
        for length in lengths:
            assert train.main([*words, f"run.dir={tmp_path / name}", f"total_nimg={length}"]) == 0
    whole, resumed = ((tmp_path / name / "checkpoints" / LAST).read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed
    record = read_json(tmp_path / "whole" / "network.json")["heads"]
    assert record["rotation"] is True and record["brightness"] == 1
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any({"loss/brightness_d", "loss/brightness_g", "loss/rotation_d"} <= set(line) for line in lines)
    discriminator, _ = load_discriminator(tmp_path / "whole")
    said = discriminator(torch.zeros(2, 1, 32, 32), torch.tensor([0, -1])).auxiliary
    assert {name: tuple(outputs.shape) for name, outputs in said.items()} == {"rotation": (2, 4), "brightness": (2, 1)}


def test_a_method_that_names_an_unknown_head_is_refused() -> None:
    method = replace(METHODS["s3gan"], heads=("rotation", "brightnes"))
    with pytest.raises(UserError, match=r"method=s3gan: heads \['brightnes'\], expected some of rotation, predictor"):
        make_heads(TrainConfig(), method, ranks=1)
