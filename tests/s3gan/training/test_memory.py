"""The memory report of the networks against what a real step saves, and what it must not touch."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from s3gan.auxiliary.rotation import Rotation
from s3gan.losses.auxiliary import quarter_turns
from s3gan.networks import HeadPlan
from s3gan.networks.biggan import LIGHT, BigGanDiscriminator, BigGanGenerator
from s3gan.training.memory import memory_lines

COUNT, TURNED = 8, 2


def kept_bytes(forward: Any, *networks: torch.nn.Module) -> int:
    """Bytes of the real tensors that a real forward pass saves, each storage once, without the networks' own."""
    saved: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.setdefault(tensor.untyped_storage().data_ptr(), tensor), lambda tensor: tensor
    ):
        graph = forward()
    own = {t.untyped_storage().data_ptr() for n in networks for t in [*n.parameters(), *n.buffers()]}
    total = sum(tensor.untyped_storage().nbytes() for pointer, tensor in saved.items() if pointer not in own)
    assert graph is not None
    return total


@pytest.mark.parametrize("half", [False, True])
def test_the_lines_say_what_real_steps_keep_and_nothing_moves(half: bool) -> None:
    torch.manual_seed(0)
    generator, discriminator = (
        BigGanGenerator(LIGHT[32], 3, 5, 8),
        BigGanDiscriminator(LIGHT[32], 3, 5, 8, HeadPlan(auxiliary={"rotation": 4})),
    )
    optimizers = tuple(torch.optim.Adam(network.parameters(), 1e-3) for network in (generator, discriminator))
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=half)
    run: Any = SimpleNamespace(local_batch=2 * COUNT, config=SimpleNamespace(accumulate=2), world=1, autocast=autocast)
    before = {name: value.clone() for name, value in [*generator.state_dict().items()]}
    draws = torch.get_rng_state()
    lines = memory_lines(run, generator, discriminator, optimizers, 3, [Rotation(TURNED)])  # type: ignore[arg-type]
    assert torch.equal(draws, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())

    labels = torch.zeros(2 * COUNT + 3 * TURNED, dtype=torch.int64)

    def discriminator_step() -> object:
        with autocast():
            return discriminator(torch.rand(len(labels), 3, 32, 32), labels)

    def generator_step() -> object:
        with autocast():
            fakes = generator(torch.randn(COUNT, generator.z_dim), labels[:COUNT])
            shown = torch.cat([fakes, quarter_turns(fakes[-TURNED:])])
            return discriminator(shown, labels[: len(shown)])

    kept_d = kept_bytes(discriminator_step, generator, discriminator)
    discriminator.requires_grad_(False)
    kept_g = kept_bytes(generator_step, generator, discriminator)
    for line, kept in zip(lines, (kept_g, kept_d), strict=False):
        stated = float(line.split(" MiB activations")[0].split()[-1]) * 2**20
        assert stated == pytest.approx(kept, rel=0.02)
