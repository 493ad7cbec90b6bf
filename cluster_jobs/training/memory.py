"""Estimates the memory that one process needs for training, before the run starts and without allocating it.

The estimate runs copies of the networks and optimizers made of fake tensors, which have shapes, types and devices but
no values: no weight, batch statistic or random generator changes. Kernel workspaces, data and the framework itself are
not counted, and torch.compile may need less.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MIB = 2**20
Networks = dict[str, nn.Module]
Players = Mapping[str, tuple[nn.Module, torch.optim.Optimizer | None]]


@dataclass(frozen=True)
class Footprint:
    """Bytes that training one network takes on one process."""

    parameters: int  # and buffers
    gradients: int
    optimizer: int
    activations: int  # what the forward pass of its step saves for the backward pass, without weights

    def __str__(self) -> str:
        parts = ("parameters", "gradients", "optimizer", "activations")
        return ", ".join(f"{getattr(self, part) / MIB:,.2f} MiB {part}" for part in parts) + " of its step"


def measure(players: Players, forwards: Mapping[str, Callable[[Networks], object]]) -> dict[str, Footprint]:
    """The memory footprint of each trained network by its name.

    Args:
        players: networks (of a GAN the players of its game) with the optimizers of their parameters, before the run
            prepares them; a network that only takes part in a forward pass has no optimizer.
        forwards: for each trained network, the forward pass of the step that updates it, on one micro-batch. It gets
            fake copies of all networks by name, which it may change, and creates its inputs with torch's factory
            functions on the networks' device.
    """
    return {name: _footprint(players, name, forward) for name, forward in forwards.items()}


def _footprint(players: Players, name: str, forward: Callable[[Networks], object]) -> Footprint:
    fake, copies = _fake_copies(players)
    networks = {player: module for player, (module, _) in copies.items()}
    module, optimizer = copies[name]
    assert optimizer is not None, f"{name} is trained"
    with fake:
        owned = [tensor for network in networks.values() for tensor in _tensors(network)]
        activations = _saved_bytes(lambda: forward(networks), owned)
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # the first step creates its state
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    return Footprint(module_bytes(module), _bytes(learned), _bytes(state), activations)


def _fake_copies(players: Players) -> tuple[Any, Players]:
    """The mode in which new tensors are fake, and copies of the players made of fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # imports slowly, and only training needs it

    fake = FakeTensorMode()
    memo: dict[int, Any] = {}  # what deepcopy takes in place of a copy
    for module, _ in players.values():
        for parameter in module.parameters():
            memo[id(parameter)] = nn.Parameter(fake.from_tensor(parameter.detach()), parameter.requires_grad)
        memo |= {id(buffer): fake.from_tensor(buffer) for buffer in module.buffers()}
    return fake, copy.deepcopy(dict(players), memo)


def report(footprints: Mapping[str, Footprint], images: int, others: int) -> list[str]:
    """Lines for the console: one per network, and the least memory that a process needs in all.

    Args:
        images: number of images in a micro-batch.
        others: further bytes that the run needs: averages of weights, a buffer of images.
    """
    held = others + sum(each.parameters + each.gradients + each.optimizer for each in footprints.values())
    peak = held + max(each.activations for each in footprints.values())
    lines = [f"memory of a process, {name}: {footprint}" for name, footprint in footprints.items()]
    return [
        *lines,
        f"memory of a process, in all: at least {peak / MIB:,.2f} MiB at {images} images a micro-batch "
        f"({others / MIB:,.2f} MiB averages and buffers; workspaces, data and the framework come on top)",
    ]


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return _bytes(_tensors(module))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _saved_bytes(forward: Callable[[], object], owned: list[Tensor]) -> int:
    """Bytes of the storages that a forward pass saves for its backward pass, each once, without those of ``owned``."""
    saved: dict[int, torch.UntypedStorage] = {}  # by the storage's address, which no other gets while it is held

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    known = {tensor.untyped_storage()._cdata for tensor in owned}
    return sum(storage.nbytes() for address, storage in saved.items() if address not in known)
