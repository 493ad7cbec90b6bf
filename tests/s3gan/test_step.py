"""The two steps against a plain way to write them, and what they must not touch."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from s3gan.networks.biggan import Discriminator, Generator
from s3gan.step import Fakes, Game, Rotation, discriminator_step, generator_step

BATCH, TURNED, CLASSES = 8, 2, 3
CPU = torch.device("cpu")


def make_game(rotation: bool = True, weight_d: float = 1.0, weight_g: float = 0.2) -> Game:
    torch.manual_seed(0)
    generator = Generator(32, 1, CLASSES, 4)
    discriminator = Discriminator(32, 1, CLASSES, 4, rotation=rotation)
    return Game(
        generator,
        discriminator,
        generator,
        discriminator,
        torch.optim.Adam(generator.parameters(), 1e-3, (0.0, 0.999), fused=True),
        torch.optim.Adam(discriminator.parameters(), 1e-3, (0.0, 0.999), fused=True),
        Fakes(0, BATCH, 0, 1, generator.z_dim, CLASSES, CPU),
        Rotation(TURNED if rotation else 0, weight_d, weight_g),
    )


def real_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(BATCH, 1, 32, 32) * 2 - 1, torch.randint(CLASSES, (BATCH,))


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_discriminators_loss_is_the_hinge_and_the_rotation_of_the_last_real_images() -> None:
    game, (images, labels) = make_game(weight_d=0.7), real_batch()
    other = copy.deepcopy(game)
    metrics = discriminator_step(game, images, labels, position=0)

    z, fake_labels = other.fakes.draw("discriminator", 0)
    fakes = other.generator(z, fake_labels).detach()
    turned = [torch.rot90(images[-TURNED:], turn, (2, 3)) for turn in range(1, 4)]
    score, logits, _ = other.discriminator(
        torch.cat([images, fakes, *turned]), torch.cat([labels, fake_labels, *[labels[-TURNED:]] * 3])
    )
    hinge = F.relu(1 - score[:BATCH]).mean() + F.relu(1 + score[BATCH : 2 * BATCH]).mean()
    turns = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    rotation = F.cross_entropy(torch.cat([logits[BATCH - TURNED : BATCH], logits[2 * BATCH :]]), turns)
    (hinge + 0.7 * rotation).backward()
    torch.testing.assert_close(metrics["loss/d"], hinge.detach())
    torch.testing.assert_close(metrics["loss/rotation_d"], rotation.detach())
    for mine, plain in zip(game.discriminator.parameters(), other.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_the_generators_loss_is_the_score_and_the_rotation_of_the_last_fakes() -> None:
    game = make_game(weight_g=0.3)
    other = copy.deepcopy(game)
    metrics = generator_step(game, position=5)

    z, labels = other.fakes.draw("generator", 5)
    fakes = other.generator(z, labels)
    turned = [torch.rot90(fakes[-TURNED:], turn, (2, 3)) for turn in range(1, 4)]
    score, logits, _ = other.discriminator(torch.cat([fakes, *turned]), torch.cat([labels, *[labels[-TURNED:]] * 3]))
    rotation = F.cross_entropy(logits[BATCH - TURNED :], torch.arange(4).repeat_interleave(TURNED))
    (-score[:BATCH].mean() + 0.3 * rotation).backward()
    torch.testing.assert_close(metrics["loss/rotation_g"], rotation.detach())
    for mine, plain in zip(game.generator.parameters(), other.generator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_each_step_changes_the_parameters_of_its_own_player_only() -> None:
    game, (images, labels) = make_game(), real_batch()
    for player, rival, step in (
        (game.discriminator, game.generator, lambda: discriminator_step(game, images, labels, 0)),
        (game.generator, game.discriminator, lambda: generator_step(game, 0)),
    ):
        before = {part: torch.nn.utils.parameters_to_vector(part.parameters()).clone() for part in (player, rival)}
        step()
        after = {part: torch.nn.utils.parameters_to_vector(part.parameters()) for part in before}
        assert not torch.equal(before[player], after[player])
        assert torch.equal(before[rival], after[rival])
        assert all(parameter.requires_grad for parameter in game.discriminator.parameters())


def test_without_rotation_there_is_no_rotation_head_and_no_turned_image() -> None:
    game, (images, labels) = make_game(rotation=False), real_batch()
    assert "loss/rotation_d" not in discriminator_step(game, images, labels, 0)
    assert "loss/rotation_g" not in generator_step(game, 0)
    assert game.discriminator.rotation is None


def test_a_weight_of_zero_still_gives_the_rotation_head_a_gradient() -> None:
    game, (images, labels) = make_game(weight_d=0.0), real_batch()
    discriminator_step(game, images, labels, 0)
    assert game.discriminator.rotation is not None
    assert torch.equal(game.discriminator.rotation.bias.grad, torch.zeros(4))


def test_a_step_is_a_function_of_the_state_and_the_position() -> None:
    runs = []
    for _ in range(2):
        game, (images, labels) = make_game(), real_batch()
        torch.manual_seed(len(runs))  # the global generator must not matter
        discriminator_step(game, images, labels, 0)
        generator_step(game, BATCH)
        runs.append({**state(game.generator), **state(game.discriminator)})
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_ranks_draw_the_slices_of_one_global_batch() -> None:
    weights = torch.tensor([0.0, 0.25, 0.75])
    for chosen in (None, weights):
        z, labels = Fakes(3, 12, 0, 1, 5, CLASSES, CPU, chosen).draw("discriminator", 24)
        parts = [Fakes(3, 12, rank, 3, 5, CLASSES, CPU, chosen).draw("discriminator", 24) for rank in range(3)]
        assert torch.equal(z, torch.cat([part[0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_fakes_differ_by_purpose_and_position_and_follow_the_distribution() -> None:
    fakes = Fakes(3, 4000, 0, 1, 2, CLASSES, CPU, torch.tensor([0.0, 0.25, 0.75]))
    draws = [fakes.draw(purpose, position)[0] for purpose in ("discriminator", "generator") for position in (0, 64)]
    assert not any(torch.equal(a, b) for number, a in enumerate(draws) for b in draws[:number])
    shares = fakes.draw("generator", 0)[1].bincount(minlength=CLASSES) / 4000
    torch.testing.assert_close(shares, fakes.weights, rtol=0, atol=0.03)
