"""Losses, regularisers and augmentations inside a step, against the same written plainly."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cluster_jobs.training.run import load_run
from s3gan import train
from s3gan.augmentation.diffaugment import DiffAugment
from s3gan.augmentation.flip_and_shift import consistency_transform
from s3gan.losses.adversarial import LOSSES
from s3gan.losses.penalties import orthogonality_of
from s3gan.losses.regularisers import Consistency, GradientPenalty, LeCam, SquaredGradient
from s3gan.networks.layers import iterate_spectral_norm
from s3gan.training.game import Game
from s3gan.training.step import discriminator_step, generator_step
from tests.processes import fork, fork_ranks
from tests.s3gan.test_train import LAST
from tests.s3gan.toy_data import TINY, make_data, make_table
from tests.s3gan.training.test_step import BATCH, make_game, real_batch

Plain = Callable[[Game, Tensor, Tensor, Tensor, Tensor], Tensor]  # (game, images, labels, fakes, fake labels)


def gradient(game: Game, images: Tensor, labels: Tensor) -> Tensor:
    """∇ of each score by its image, one image after the other."""
    found = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].clone().requires_grad_()
        score = game.discriminator(image, label[None]).score.sum()
        found.append(torch.autograd.grad(score, image, create_graph=True)[0])
    return torch.cat(found)


def plain_r1(game: Game, images: Tensor, labels: Tensor, fakes: Tensor, fake_labels: Tensor) -> Tensor:
    return 0.5 * gradient(game, images, labels).square().sum((1, 2, 3)).mean()


def plain_r2(game: Game, images: Tensor, labels: Tensor, fakes: Tensor, fake_labels: Tensor) -> Tensor:
    return plain_r1(game, fakes, fake_labels, images, labels)


def plain_gradient_penalty(game: Game, images: Tensor, labels: Tensor, fakes: Tensor, fake_labels: Tensor) -> Tensor:
    u = game.fakes.uniform("regularise", 0, 1)[:, :, None, None]
    norms = gradient(game, u * images + (1 - u) * fakes, labels).square().sum((1, 2, 3)).sqrt()
    return (norms - 1).square().mean()


def plain_consistency(game: Game, images: Tensor, labels: Tensor, fakes: Tensor, fake_labels: Tensor) -> Tensor:
    moved = consistency_transform(images, game.fakes.uniform("regularise", 0, consistency_transform.draws))
    difference = game.discriminator(images, labels).score - game.discriminator(moved, labels).score
    return difference.square().mean()


def plain_lecam(game: Game, images: Tensor, labels: Tensor, fakes: Tensor, fake_labels: Tensor) -> Tensor:
    real, fake = (game.discriminator(*pair).score for pair in ((images, labels), (fakes, fake_labels)))
    return (F.relu(real + 0.5).square() + F.relu(0.25 - fake).square()).mean()


def averages(game: Game) -> Game:
    """The game after scores of 0.25 for real images and -0.5 for fakes."""
    game.averages.update(torch.tensor(0.25), torch.tensor(-0.5))
    return game


REGULARISERS: dict[str, tuple[Callable[[Game], object], Plain]] = {
    "r1": (lambda game: SquaredGradient("r1", 0.3, 0), plain_r1),
    "r2": (lambda game: SquaredGradient("r2", 0.3, 1), plain_r2),
    "gradient_penalty": (lambda game: GradientPenalty(0.3), plain_gradient_penalty),
    "consistency": (lambda game: Consistency(0.3), plain_consistency),
    "lecam": (lambda game: LeCam(0.3, averages(game).averages), plain_lecam),
}


def with_changes(game: Game, **changes: object) -> Game:
    """The same players under other rules."""
    for name, value in changes.items():
        object.__setattr__(game, name, value)
    return game


def plain_round(game: Game) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real images, their labels, fakes and theirs, of a first discriminator step; spectral norms have moved on."""
    for player in (game.generator, game.discriminator):
        iterate_spectral_norm(player, 1)
    z, fake_labels = game.fakes.draw("discriminator", 0)
    return *real_batch(), game.generator(z, fake_labels).detach(), fake_labels


@pytest.mark.parametrize("name", REGULARISERS)
def test_a_regulariser_adds_its_weighted_penalty_to_the_discriminators_loss(name: str) -> None:
    make, plain = REGULARISERS[name]
    game = make_game(rotation=False)
    other = copy.deepcopy(game)
    metrics = discriminator_step(with_changes(game, regularisers=(make(game),)), *real_batch(), 0)
    images, labels, fakes, fake_labels = plain_round(other)
    real, fake = (other.discriminator(*pair).score for pair in ((images, labels), (fakes, fake_labels)))
    penalty = plain(other, images, labels, fakes, fake_labels)
    (F.relu(1 - real).mean() + F.relu(1 + fake).mean() + 0.3 * penalty).backward()
    torch.testing.assert_close(metrics[f"penalty/{name}"], penalty.detach(), rtol=1e-4, atol=1e-6)
    for mine, expected in zip(game.discriminator.parameters(), other.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_lecam_waits_for_an_average() -> None:
    game = make_game(rotation=False)
    metrics = discriminator_step(with_changes(game, regularisers=(LeCam(1.0, game.averages),)), *real_batch(), 0)
    assert metrics["penalty/lecam"] == 0
    torch.testing.assert_close(game.averages.real, metrics["score/real"].float())
    assert discriminator_step(game, *real_batch(), BATCH)["penalty/lecam"] > 0


def test_regularisers_take_their_noise_from_the_left() -> None:
    game = make_game(rotation=False)
    other = copy.deepcopy(game)
    chosen = Consistency(1.0), GradientPenalty(1.0)
    metrics = discriminator_step(with_changes(game, regularisers=chosen), *real_batch(), 0)
    images, labels, _, _ = plain_round(other)
    noise = other.fakes.uniform("regularise", 0, consistency_transform.draws + 1)
    moved = consistency_transform(images, noise[:, :-1])
    expected = (other.discriminator(images, labels).score - other.discriminator(moved, labels).score).square().mean()
    torch.testing.assert_close(metrics["penalty/consistency"], expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_reaches_both_players(name: str) -> None:
    game = make_game(rotation=False)
    other, loss = copy.deepcopy(game), LOSSES[name]
    with_changes(game, loss=loss)
    metrics = discriminator_step(game, *real_batch(), 0)
    images, labels, fakes, fake_labels = plain_round(other)
    real, fake = (other.discriminator(*pair).score for pair in ((images, labels), (fakes, fake_labels)))
    torch.testing.assert_close(metrics["loss/d"], loss.discriminator(real, fake).mean().detach())
    other.discriminator.load_state_dict(game.discriminator.state_dict())
    other.generator.load_state_dict(game.generator.state_dict())
    metrics = generator_step(game, images, labels, BATCH)
    for player in (other.generator, other.discriminator):
        iterate_spectral_norm(player, 1)
    z, fake_labels = other.fakes.draw("generator", BATCH)
    fake, real = other.discriminator(other.generator(z, fake_labels), fake_labels), other.discriminator(images, labels)
    expected = loss.generator(fake.score, real.score.detach()).mean()
    expected.backward()
    torch.testing.assert_close(metrics["loss/g"], expected.detach())
    for mine, theirs in zip(game.generator.parameters(), other.generator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_discriminator_sees_augmented_images_and_turns_those() -> None:
    game = make_game()
    other, augment = copy.deepcopy(game), DiffAugment()
    metrics = discriminator_step(with_changes(game, augment=augment), *real_batch(), 0)
    images, labels, fakes, fake_labels = plain_round(other)
    images = augment(images, other.fakes.uniform("augment real", 0, augment.draws))
    fakes = augment(fakes, other.fakes.uniform("augment fake", 0, augment.draws))
    score = other.discriminator(images, labels).score
    torch.testing.assert_close(metrics["score/real"], score.mean().detach(), rtol=1e-4, atol=1e-5)
    turned = torch.cat([images[-2:].rot90(turn, (2, 3)) for turn in range(4)])
    logits = other.discriminator(turned, labels[-2:].repeat(4)).auxiliary["rotation"]
    expected = F.cross_entropy(logits, torch.arange(4).repeat_interleave(2))
    torch.testing.assert_close(metrics["loss/rotation_d"], expected.detach(), rtol=1e-4, atol=1e-5)


def test_augmentation_passes_gradients_to_the_generator() -> None:
    game = with_changes(make_game(), augment=DiffAugment())
    generator_step(game, *real_batch(), 0)
    assert all(parameter.grad.any() for parameter in game.generator.parameters())


@pytest.mark.parametrize("player", ["g", "d"])
def test_orthogonal_regularisation_adds_to_the_players_loss(player: str) -> None:
    plain, regularised = make_game(rotation=False), make_game(rotation=False)
    with_changes(regularised, **{f"orthogonal_{player}": 0.01})
    steps = {"d": discriminator_step, "g": generator_step}
    module = {"d": "discriminator", "g": "generator"}[player]
    other = copy.deepcopy(getattr(plain, module))
    steps[player](plain, *real_batch(), 0)
    metrics = steps[player](regularised, *real_batch(), 0)
    penalty = orthogonality_of(other)
    penalty.backward()
    torch.testing.assert_close(metrics[f"penalty/orthogonal_{player}"], penalty.detach())
    trios = zip(*(getattr(game, module).parameters() for game in (plain, regularised)), other.parameters(), strict=True)
    for without, found, extra in trios:
        expected = without.grad if extra.grad is None else without.grad + 0.01 * extra.grad
        torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-6)


EVERYTHING = ["augment=ada", "lecam=0.1", "consistency=1", "r1=0.1", "orthogonal_g=1e-4"]


def words(tmp_path: Path, run: Path, *keys: str) -> list[str]:
    if not (tmp_path / "table.parquet").exists():
        make_table(tmp_path / "table.parquet", make_data(tmp_path / "train"))
    inputs = [f"data={tmp_path / 'train'}", f"labels={tmp_path / 'table.parquet'}", f"run.dir={run}"]
    return [*inputs, *TINY, "rotated_batch_fraction=2", *EVERYTHING, *keys]


def test_what_adapts_is_in_the_checkpoint_and_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train.main(words(tmp_path, whole)) == 0
    assert train.main(words(tmp_path, halves, "total_nimg=80")) == 0
    assert train.main(words(tmp_path, halves)) == 0
    assert (whole / LAST).read_bytes() == (halves / LAST).read_bytes()
    _, state, _ = load_run(whole)
    assert state["score_averages"]["weight"] > 0 and {"p", "signs", "observations"} <= set(state["augmentation"])
    assert '"augment/p"' in (whole / "metrics.jsonl").read_text()


@pytest.mark.cluster
def test_two_processes_follow_the_gradients_of_one_with_every_regulariser(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    keys = ["total_nimg=32", "accumulate=1", "gradient_penalty=0.1", "r2=0.1", "loss=relativistic"]
    assert fork(tmp_path / "log", "s3gan.train", *words(tmp_path, one, *keys)).code == 0
    for ended in fork_ranks(tmp_path / "ranks", "s3gan.train", *words(tmp_path, two, *keys)):
        assert ended.code == 0, ended.output
    (_, state, _), (_, other, _) = (load_run(run) for run in (one, two))
    torch.testing.assert_close(state["score_averages"], other["score_averages"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("key", ["r1", "r2", "gradient_penalty"])
def test_second_derivatives_and_compilation_exclude_each_other(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words(tmp_path, tmp_path / "run", f"{key}=1", "compile=true")) == 2
    assert "compile=true" in capsys.readouterr().err
