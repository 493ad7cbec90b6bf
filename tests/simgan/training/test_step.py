import copy

import pytest
import torch

from simgan.networks.discriminator import PatchDiscriminator
from simgan.networks.refiner import Refiner
from simgan.training.game import RefinerGame
from simgan.training.history import History
from simgan.training.losses import adversarial_loss, self_regularisation
from simgan.training.step import discriminator_step, refiner_step


def new_game(regularisation: float = 0.1, capacity: int = 8, accumulate: int = 1) -> RefinerGame:
    torch.manual_seed(0)
    refiner, discriminator = Refiner(1, width=4, blocks=1), PatchDiscriminator(1, "gaze")
    optimizers = [torch.optim.Adam(module.parameters(), 1e-2, fused=True) for module in (refiner, discriminator)]
    history = History(capacity, (1, 8, 8), seed=0, device=torch.device("cpu"))
    players = (refiner, discriminator, refiner, discriminator)
    return RefinerGame(*players, optimizers[0], optimizers[1], history, regularisation, accumulate=accumulate)


def images(count: int, level: float = 0.5) -> torch.Tensor:
    return (torch.rand(count, 1, 8, 8) * 2 - 1) * level


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def test_each_step_changes_its_own_player_only() -> None:
    game = new_game()
    before = weights(game.refiner), weights(game.discriminator)
    refiner_step(game, images(4), adversarial=True)
    assert not torch.equal(weights(game.refiner), before[0]) and torch.equal(weights(game.discriminator), before[1])
    before = weights(game.refiner), weights(game.discriminator)
    discriminator_step(game, images(4), images(4), 0)
    assert torch.equal(weights(game.refiner), before[0]) and not torch.equal(weights(game.discriminator), before[1])
    assert all(parameter.requires_grad for parameter in game.discriminator.parameters())


def test_the_logged_terms_are_sums_an_image_averaged_over_images() -> None:
    game, synthetic = new_game(), images(4)
    with torch.no_grad():
        refined = game.refiner(synthetic)
        expected = self_regularisation(refined, synthetic).mean(), adversarial_loss(game.discriminator(refined)).mean()
    metrics = refiner_step(game, synthetic, adversarial=True)
    torch.testing.assert_close((metrics["loss/change"], metrics["loss/adversarial"]), expected)


def test_the_warm_up_of_the_refiner_does_not_ask_the_discriminator() -> None:
    metrics = refiner_step(new_game(), images(4), adversarial=False)
    assert "loss/adversarial" not in metrics


def test_d_sees_half_a_batch_of_new_images_and_half_of_old_ones() -> None:
    game = new_game()
    seen: list[torch.Tensor] = []
    game.prepared_discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    first, second = images(4), images(4)
    with torch.no_grad():
        made = game.refiner(first), game.refiner(second)
    discriminator_step(game, first, images(4), 0)
    assert torch.equal(seen[0][:4], torch.cat([made[0][::2], made[0][1::2]]))  # nothing old yet
    discriminator_step(game, second, images(4), 1)
    assert torch.equal(seen[1][:2], made[1][::2])
    old = {tuple(image.flatten().tolist()) for image in seen[1][2:4]}
    assert old == {tuple(image.flatten().tolist()) for image in made[0][1::2]}
    assert game.history.filled == 4


def test_d_learns_to_tell_refined_from_real() -> None:
    game = new_game()
    losses = []
    for step in range(40):
        metrics = discriminator_step(game, images(8, 0.1), images(8, 0.9), step)
        losses.append(float(metrics["loss/d_refined"] + metrics["loss/d_real"]))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("player", ["refiner", "discriminator"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(player: str) -> None:
    game, poisoned = new_game(), images(4)
    refiner_step(game, images(4), adversarial=True)
    discriminator_step(game, images(4), images(4), 0)  # the moments are no longer zero
    poisoned[0, 0, 0, 0] = float("inf") if player == "refiner" else float("nan")
    optimizer = game.optimizer_r if player == "refiner" else game.optimizer_d
    before, moments = weights(getattr(game, player)), copy.deepcopy(optimizer.state_dict()["state"])
    if player == "refiner":
        skipped = refiner_step(game, poisoned, adversarial=True)["skipped/r"]
    else:
        skipped = discriminator_step(game, images(4), poisoned, 1)["skipped/d"]
    assert float(skipped) == 1 and torch.equal(weights(getattr(game, player)), before)
    for number, state in optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], moments[number]["exp_avg"])
        assert float(state["step"]) == float(moments[number]["step"])
    refiner_step(game, images(4), adversarial=True)
    discriminator_step(game, images(4), images(4), 2)
    assert not torch.equal(weights(getattr(game, player)), before)


def test_micro_batches_give_the_gradients_and_the_history_of_the_whole_batch() -> None:
    whole, parts = new_game(), new_game(accumulate=4)
    synthetic, real = images(8), images(8)
    for step in range(3):
        for one in (
            lambda game: refiner_step(game, synthetic, adversarial=True),
            lambda game: discriminator_step(game, synthetic, real, step),  # noqa: B023
        ):
            expected, found = one(whole), one(parts)
            for name, value in expected.items():
                if name.partition("/")[0] in ("diversity", "spread"):
                    continue  # over the images of a micro-batch
                torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
        assert parts.history.filled == whole.history.filled == min(8, 4 * (step + 1))
        torch.testing.assert_close(parts.history.images, whole.history.images, rtol=1e-3, atol=1e-3)
    for player in ("refiner", "discriminator"):
        pairs = zip(getattr(whole, player).parameters(), getattr(parts, player).parameters(), strict=True)
        for mine, other in pairs:
            torch.testing.assert_close(other.grad, mine.grad, rtol=1e-2, atol=1e-3)
