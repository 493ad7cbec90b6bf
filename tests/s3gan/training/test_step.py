"""The two steps against a plain way to write them, and what they must not touch."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cluster_jobs.distributed.batch_split import strided
from s3gan.auxiliary import AuxiliaryHead
from s3gan.auxiliary.prediction import Prediction
from s3gan.auxiliary.rotation import Rotation
from s3gan.methods import METHODS, Method
from s3gan.networks import HeadPlan
from s3gan.networks.biggan import LIGHT, BigGanDiscriminator, BigGanGenerator
from s3gan.networks.layers import SpectralNorm, iterate_spectral_norm
from s3gan.training.fakes import Fakes
from s3gan.training.game import Game
from s3gan.training.step import discriminator_step, generator_step

BATCH, TURNED, CLASSES = 8, 2, 3
CPU, ALL = torch.device("cpu"), slice(None)


def make_game(
    rotation: bool = True,
    weight_d: float = 1.0,
    weight_g: float = 0.2,
    accumulate: int = 1,
    predictor: bool = False,
    soft: bool = False,
    prediction_weight: float = 1.0,
    projection: bool = True,
    extra: tuple[AuxiliaryHead, ...] = (),
) -> Game:
    heads: list[AuxiliaryHead] = [Rotation(TURNED // accumulate, weight_d, weight_g)] if rotation else []
    heads += [*([Prediction(prediction_weight)] if predictor else []), *extra]
    plan = HeadPlan(projection, {head.name: head.outputs(CLASSES) for head in heads}, soft)
    torch.manual_seed(0)
    generator = BigGanGenerator(LIGHT[32], 1, CLASSES, 4)
    discriminator = BigGanDiscriminator(LIGHT[32], 1, CLASSES, 4, plan)
    return Game(
        generator,
        discriminator,
        generator,
        discriminator,
        torch.optim.Adam(generator.parameters(), 1e-3, (0.0, 0.999), fused=True),
        torch.optim.Adam(discriminator.parameters(), 1e-3, (0.0, 0.999), fused=True),
        Fakes(0, BATCH, ALL, generator.z_dim, CLASSES, CPU),
        tuple(heads),
        accumulate=accumulate,
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

    for player in (other.generator, other.discriminator):
        iterate_spectral_norm(player, 1)
    z, fake_labels = other.fakes.draw("discriminator", 0)
    fakes = other.generator(z, fake_labels).detach()
    turned = [torch.rot90(images[-TURNED:], turn, (2, 3)) for turn in range(1, 4)]
    score, auxiliary, _ = other.discriminator(
        torch.cat([images, fakes, *turned]), torch.cat([labels, fake_labels, *[labels[-TURNED:]] * 3])
    )
    logits = auxiliary["rotation"]
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
    metrics = generator_step(game, *real_batch(), position=5)

    for player in (other.generator, other.discriminator):
        iterate_spectral_norm(player, 1)
    z, labels = other.fakes.draw("generator", 5)
    fakes = other.generator(z, labels)
    turned = [torch.rot90(fakes[-TURNED:], turn, (2, 3)) for turn in range(1, 4)]
    score, auxiliary, _ = other.discriminator(torch.cat([fakes, *turned]), torch.cat([labels, *[labels[-TURNED:]] * 3]))
    rotation = F.cross_entropy(auxiliary["rotation"][BATCH - TURNED :], torch.arange(4).repeat_interleave(TURNED))
    (-score[:BATCH].mean() + 0.3 * rotation).backward()
    torch.testing.assert_close(metrics["loss/rotation_g"], rotation.detach())
    for mine, plain in zip(game.generator.parameters(), other.generator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradients_of_the_whole_batch_where_there_is_no_batch_statistic() -> None:
    whole, parts = make_game(), make_game(accumulate=2)
    images, labels = real_batch()
    for game in (whole, parts):
        game.generator.eval()  # batch norm by its running moments: every image by itself
    for step in (
        lambda game: discriminator_step(game, images, labels, 0),
        lambda game: generator_step(game, *real_batch(), 0),
    ):
        expected, found = step(whole), step(parts)
        for name, value in expected.items():
            if not name.startswith("diversity/") and name != "accuracy/d":  # these look at several images at once
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    for player in ("generator", "discriminator"):
        pairs = zip(getattr(whole, player).parameters(), getattr(parts, player).parameters(), strict=True)
        assert all(a.grad is not None for a in getattr(whole, player).parameters())
        for one, other in pairs:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)


def test_four_micro_batches_give_the_discriminators_gradients_of_one_batch() -> None:
    games = [make_game(rotation=False), make_game(rotation=False, accumulate=4)]
    for game in games:
        game.generator.eval()
        discriminator_step(game, *real_batch(), 0)
    for one, four in zip(*(game.discriminator.parameters() for game in games), strict=True):
        torch.testing.assert_close(four.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_the_generators_batch_norm_sees_micro_batches() -> None:
    game, seen = make_game(accumulate=2), []
    game.generator.norm.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    generator_step(game, *real_batch(), 0)
    assert seen == [BATCH // 2] * 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_spectral_norms_iterate_once_a_step(accumulate: int) -> None:
    game, (images, labels) = make_game(accumulate=accumulate), real_batch()
    for step in (lambda: discriminator_step(game, images, labels, 0), lambda: generator_step(game, *real_batch(), 0)):
        once = copy.deepcopy([game.generator, game.discriminator])
        for player in once:
            iterate_spectral_norm(player, 1)
        step()
        for player, expected in zip((game.generator, game.discriminator), once, strict=True):
            norms = [layer for layer in player.modules() if isinstance(layer, SpectralNorm)]
            others = [layer for layer in expected.modules() if isinstance(layer, SpectralNorm)]
            assert len(norms) > 5
            for norm, other in zip(norms, others, strict=True):
                assert torch.equal(norm.u, other.u) and torch.equal(norm.v, other.v)


def test_each_step_changes_the_parameters_of_its_own_player_only() -> None:
    game, (images, labels) = make_game(), real_batch()
    for player, rival, step in (
        (game.discriminator, game.generator, lambda: discriminator_step(game, images, labels, 0)),
        (game.generator, game.discriminator, lambda: generator_step(game, *real_batch(), 0)),
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
    assert "loss/rotation_g" not in generator_step(game, *real_batch(), 0)
    assert not hasattr(game.discriminator.heads, "rotation")


def test_a_weight_of_zero_still_gives_the_rotation_head_a_gradient() -> None:
    game, (images, labels) = make_game(weight_d=0.0), real_batch()
    discriminator_step(game, images, labels, 0)
    assert torch.equal(game.discriminator.heads.rotation.bias.grad, torch.zeros(4))


def test_a_step_is_a_function_of_the_state_and_the_position() -> None:
    runs = []
    for _ in range(2):
        game, (images, labels) = make_game(), real_batch()
        torch.manual_seed(len(runs))  # the global generator must not matter
        discriminator_step(game, images, labels, 0)
        generator_step(game, *real_batch(), BATCH)
        runs.append({**state(game.generator), **state(game.discriminator)})
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_ranks_draw_the_shares_of_one_global_batch() -> None:
    weights = torch.tensor([0.0, 0.25, 0.75])
    for chosen in (None, weights):
        z, labels = Fakes(3, 12, ALL, 5, CLASSES, CPU, chosen).draw("discriminator", 24)
        for mine in (strided(12, rank, 3) for rank in range(3)):
            drawn = Fakes(3, 12, mine, 5, CLASSES, CPU, chosen).draw("discriminator", 24)
            assert torch.equal(z[mine], drawn[0]) and torch.equal(labels[mine], drawn[1])


def test_fakes_differ_by_purpose_and_position_and_follow_the_distribution() -> None:
    fakes = Fakes(3, 4000, ALL, 2, CLASSES, CPU, torch.tensor([0.0, 0.25, 0.75]))
    draws = [fakes.draw(purpose, position)[0] for purpose in ("discriminator", "generator") for position in (0, 64)]
    assert not any(torch.equal(a, b) for number, a in enumerate(draws) for b in draws[:number])
    shares = fakes.draw("generator", 0)[1].bincount(minlength=CLASSES) / 4000
    torch.testing.assert_close(shares, fakes.weights, rtol=0, atol=0.03)


def unlabel(labels: Tensor) -> Tensor:
    """The labels, known for the first three images only."""
    return torch.where(torch.arange(BATCH) < 3, labels, -1)


@pytest.mark.parametrize("soft", [False, True])
def test_the_predictor_learns_from_labelled_images_and_conditions_the_others_behind_a_stop_gradient(soft: bool) -> None:
    game = make_game(rotation=False, predictor=True, soft=soft, prediction_weight=0.6)
    images, labels = real_batch()
    other = copy.deepcopy(game)
    metrics = discriminator_step(game, images, unlabel(labels), position=0)

    for player in (other.generator, other.discriminator):
        iterate_spectral_norm(player, 1)
    z, fake_labels = other.fakes.draw("discriminator", 0)
    fakes = other.generator(z, fake_labels).detach()
    with torch.no_grad():
        guess = other.discriminator(images, labels).auxiliary["predictor"]
    known = F.one_hot(labels, CLASSES).float()
    filled = torch.where((torch.arange(BATCH) < 3)[:, None], known, F.one_hot(guess.argmax(1), CLASSES).float())
    if soft:
        filled = torch.where((torch.arange(BATCH) < 3)[:, None], known, guess.softmax(1))
    real, fake = other.discriminator(images, filled), other.discriminator(fakes, fake_labels)
    entropy = F.cross_entropy(real.auxiliary["predictor"][:3], labels[:3])
    (F.relu(1 - real.score).mean() + F.relu(1 + fake.score).mean() + 0.6 * entropy).backward()
    torch.testing.assert_close(metrics["loss/prediction_d"], entropy.detach())
    accuracy = (guess[:3].argmax(1) == labels[:3]).float().mean()
    torch.testing.assert_close(metrics["accuracy/prediction_d"], accuracy)
    for mine, plain in zip(game.discriminator.parameters(), other.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_the_adversarial_loss_sends_no_gradient_to_the_predictor() -> None:
    game, (images, labels) = make_game(rotation=False, predictor=True, soft=True, prediction_weight=0.0), real_batch()
    discriminator_step(game, images, unlabel(labels), 0)
    assert all(not parameter.grad.any() for parameter in game.discriminator.heads.predictor.parameters())


def test_the_generators_step_leaves_rotation_and_prediction_heads_alone() -> None:
    game = make_game(predictor=True)
    heads = game.discriminator.heads
    generator_step(game, *real_batch(), 0)
    assert all(parameter.grad is None for parameter in heads.parameters())
    assert all(parameter.grad is not None for parameter in game.generator.parameters())


def test_a_batch_without_labels_teaches_the_predictor_nothing_and_stays_finite() -> None:
    game, (images, labels) = make_game(predictor=True), real_batch()
    metrics = discriminator_step(game, images, torch.full_like(labels, -1), 0)
    assert metrics["loss/prediction_d"] == 0 and metrics["skipped/d"] == 0
    assert not game.discriminator.heads.predictor.weight.grad.any()


def test_micro_batches_with_uneven_labels_give_the_mean_over_all_labelled_images() -> None:
    whole, parts = make_game(predictor=True), make_game(predictor=True, accumulate=2)
    images, labels = real_batch()
    for game in (whole, parts):
        game.generator.eval()
        discriminator_step(game, images, unlabel(labels), 0)
    for one, other in zip(whole.discriminator.parameters(), parts.discriminator.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)


def test_soft_labels_of_certain_classes_are_hard_labels() -> None:
    hard, soft = make_game(), make_game()
    images, labels = real_batch()
    discriminator_step(hard, images, labels, 0)
    discriminator_step(soft, images, F.one_hot(labels, CLASSES).float(), 0)
    for one, other in zip(hard.discriminator.parameters(), soft.discriminator.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_an_image_of_unknown_class_is_scored_without_the_projection_where_nothing_predicts_it() -> None:
    game, (images, labels) = make_game(rotation=False), real_batch()
    unknown = game.discriminator(images, torch.full_like(labels, -1))
    torch.testing.assert_close(unknown.score, game.discriminator.heads.score(unknown.features).squeeze(1))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_step_of_each_method_changes_every_parameter_of_its_player_and_has_the_methods_heads(method: Method) -> None:
    rotation, predictor = ("rotation" in method.heads, "predictor" in method.heads)
    game, (images, labels) = make_game(rotation, predictor=predictor, projection=method.projection), real_batch()
    given = unlabel(labels) if method.partial else labels
    wanted = method.real_labels(given, lambda: labels)
    heads = {name for name, head in game.discriminator.heads.named_children() if head is not None}
    assert heads == {"score", *method.heads} | ({"projection"} if method.projection else set())
    before = {player: state(player) for player in (game.generator, game.discriminator)}
    discriminator_step(game, images, wanted, 0)
    weights = {name for name, _ in game.discriminator.named_parameters()}
    # within the hinge's margins as many scores are pushed up as down, and the bias of the score stays
    assert changed(game.discriminator, before) >= weights - {"heads.score.bias"}
    assert changed(game.generator, before) <= {name for name, _ in game.generator.named_buffers()}
    before = {player: state(player) for player in (game.generator, game.discriminator)}
    generator_step(game, *real_batch(), BATCH)
    assert changed(game.generator, before) >= {name for name, _ in game.generator.named_parameters()}
    assert changed(game.discriminator, before) <= {name for name, _ in game.discriminator.named_buffers()}


def changed(player: torch.nn.Module, before: dict[torch.nn.Module, dict[str, Tensor]]) -> set[str]:
    """The names of parameters and buffers that are no longer what they were."""
    return {name for name, value in player.state_dict().items() if not torch.equal(value, before[player][name])}
