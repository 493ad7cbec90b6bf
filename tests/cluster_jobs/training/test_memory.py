"""The memory report against a count by hand."""

import torch
from torch import nn

from cluster_jobs.training.memory import Footprint, Networks, measure, module_bytes, report

FLOAT = 4


def test_a_footprint_is_what_a_count_by_hand_gives() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, (0.0, 0.999), fused=True)

    def forward(networks: Networks) -> object:
        return networks["player"](torch.empty(5, 3))

    footprint = measure({"player": (network, optimizer)}, {"player": forward})["player"]
    learned = FLOAT * (3 * 4 + 4 + 4 * 2 + 2)
    assert footprint.parameters == learned + FLOAT * 2 * 4 + 8  # running mean and variance, and an int64 counter
    assert footprint.gradients == learned
    assert footprint.optimizer == 2 * learned + FLOAT * 4  # two moments, and a step count a tensor
    kept = 5 * 3 + 5 * 4 + 5 * 4  # the input, the output of ReLU (once, for two layers), that of batch norm
    assert footprint.activations == FLOAT * (kept + 2 * 4)  # batch norm keeps its mean and deviation as well


def test_the_activations_of_a_step_run_through_a_frozen_rival_without_its_weights() -> None:
    player, rival = nn.Linear(3, 4), nn.Linear(4, 2)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in (player, rival)]

    def forward(networks: Networks) -> object:
        networks["rival"].requires_grad_(False)
        return networks["rival"](networks["player"](torch.empty(7, 3)))

    players = {"player": (player, optimizers[0]), "rival": (rival, optimizers[1])}
    footprints = measure(players, {"player": forward})
    assert list(footprints) == ["player"] and footprints["player"].optimizer == 0
    assert footprints["player"].activations == FLOAT * 7 * 3  # a frozen linear map needs its weight alone
    assert all(parameter.requires_grad for parameter in rival.parameters())


def test_measuring_moves_nothing_and_allocates_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, (0.0, 0.999), fused=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    draws = torch.get_rng_state()

    def forward(networks: Networks) -> object:
        return networks["player"](torch.rand(10**6, 3, 512, 512))  # three terabytes

    footprint = measure({"player": (network, optimizer)}, {"player": forward})["player"]
    assert footprint.activations > 10**6 * 3 * 512 * 512 * FLOAT
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(draws, torch.get_rng_state())
    assert not optimizer.state and all(parameter.grad is None for parameter in network.parameters())


def test_the_report_adds_what_is_held_always_and_the_larger_of_two_steps() -> None:
    mib = 2**20
    small, large = Footprint(mib, mib, 2 * mib, 3 * mib), Footprint(10 * mib, 10 * mib, 20 * mib, mib // 2)
    lines = report({"generator": small, "discriminator": large}, images=16, others=5 * mib)
    assert len(lines) == 3
    assert lines[0].endswith(
        "generator: 1.00 MiB parameters, 1.00 MiB gradients, 2.00 MiB optimizer, 3.00 MiB activations of its step"
    )
    assert "at least 52.00 MiB at 16 images" in lines[2]  # 4 + 40 + 3 + 5


def test_a_modules_bytes_are_those_of_its_parameters_and_buffers() -> None:
    assert module_bytes(nn.BatchNorm1d(3)) == FLOAT * 4 * 3 + 8
