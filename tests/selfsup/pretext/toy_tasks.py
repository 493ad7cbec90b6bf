"""Four small pretext tasks, each with one thing that a task may do and rotation does not: a loss over the pictures of
all ranks, a queue and a momentum copy, two optimizers, and targets that are found anew."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfsup.encoders.resnet import Encoder, initialise
from selfsup.pretext.draws import Draws
from selfsup.pretext.protocol import Gather, OptimizerStep, PretextModule, PretextTask, TaskLosses, Views

TEMPERATURE = 0.5
DIMENSIONS = 8


def two_views(images: Tensor, draws: Draws) -> Tensor:
    """Each picture twice, under a contrast, a shift of its brightness and noise of its own: (2N, C, H, W)."""
    contrast, brightness = draws.uniform("contrast", 2), draws.normal("brightness", 2)
    noise = draws.normal("noise", 2, *images.shape[1:]).to(images.device)
    views = [
        images * (0.5 + contrast[:, view, None, None, None]).to(images.device)
        + 0.2 * brightness[:, view, None, None, None].to(images.device)
        + 0.1 * noise[:, view]
        for view in (0, 1)
    ]
    return torch.cat(views)


def nt_xent(first: Tensor, second: Tensor, gather: Gather) -> Tensor:
    """The contrastive loss of N pairs of unit vectors (N, F) among those of all ranks: (N,) (Chen et al. 2020, eq. 1).

    The negatives of a view are both views of all other pictures.
    """
    joined = torch.cat([gather(first), gather(second)])
    pictures = len(joined) // 2
    own = torch.arange(pictures, device=first.device)[gather.own(len(first))]
    itself, positive = torch.cat([own, own + pictures]), torch.cat([own + pictures, own])
    logits = torch.cat([first, second]) @ joined.T / TEMPERATURE
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    return F.cross_entropy(logits, positive, reduction="none").view(2, -1).mean(0)


class Projection(PretextModule):
    """An encoder under a linear projection to the unit sphere."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.num_features, DIMENSIONS)
        initialise(self.head, 0, "toy")

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to unit vectors (N, DIMENSIONS)."""
        return F.normalize(self.head(self.encoder(images)).float(), dim=1)


class Toy(PretextTask):
    """What the toys share: the sheet shows the pictures."""

    caption = "Held-out images."

    def sheet(self, module: PretextModule, images: Tensor, views: Views) -> tuple[np.ndarray, int]:
        return images.numpy(), len(images)


class Contrast(Toy):
    """Finds the other view of a picture among the views of all ranks (as SimCLR does)."""

    measured, score, higher_is_better = ("distance",), "distance", False

    def module(self, encoder: Encoder) -> Projection:
        return Projection(encoder)

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        return (two_views(images, draws),)

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        losses = nt_xent(*network(views[0]).chunk(2), gather)
        return TaskLosses(losses, {"loss": losses.mean()})

    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        first, second = module(views[0]).chunk(2)
        return [(first - second).square().sum(1)]


class ContrastWithinRank(Contrast):
    """The same without the pictures of other ranks: what it learns depends on their number."""

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        return super().losses(network, views, Gather())


class QueueModule(PretextModule):
    """An encoder and its projection, a copy of both that follows, and keys of pictures seen before."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, encoder: Encoder, length: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.num_features, DIMENSIONS)
        initialise(self.head, 0, "toy")
        self.follower = copy.deepcopy(nn.ModuleList([self.encoder, self.head])).requires_grad_(False)
        keys = torch.randn(length, DIMENSIONS, generator=torch.Generator().manual_seed(0))
        self.register_buffer("queue", F.normalize(keys, dim=1))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both views (2N, C, H, W) to queries and keys (N, DIMENSIONS), and the queue (length, DIMENSIONS)."""
        first, second = views.chunk(2)
        queries = F.normalize(self.head(self.encoder(first)).float(), dim=1)
        with torch.no_grad():
            encoder, head = self.follower
            keys = F.normalize(head(encoder(second)).float(), dim=1)
        return queries, keys, self.queue

    def follow(self, momentum: float) -> None:
        """Moves the copy towards what learns."""
        learned = [*self.encoder.parameters(), *self.head.parameters()]
        for follows, learns in zip(self.follower.parameters(), learned, strict=True):
            follows.lerp_(learns, 1 - momentum)

    def enqueue(self, keys: Tensor) -> None:
        """Puts keys (n, DIMENSIONS) in the place of the oldest."""
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.pointer.add_(len(keys)).remainder_(len(self.queue))


class Queue(Toy):
    """Finds the key of a picture among those of pictures seen before (as MoCo does)."""

    measured, score, higher_is_better = ("similarity",), "similarity", True

    def module(self, encoder: Encoder) -> QueueModule:
        return QueueModule(encoder, length=48)

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        return (two_views(images, draws),)

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        queries, keys, queue = network(views[0])
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ queue.T], 1) / TEMPERATURE
        losses = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64), reduction="none")
        return TaskLosses(losses, {"loss": losses.mean()}, (keys,))

    def after_step(self, module: PretextModule, kept: Views, gather: Gather, nimg: int) -> None:
        assert isinstance(module, QueueModule)
        module.enqueue(gather(kept[0]))
        module.follow(1 - 1 / (2 + nimg / 32))

    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        queries, keys, _ = module(views[0])
        return [(queries * keys).sum(1)]


class QueueWithABadBatch(Queue):
    """The pictures of the third batch are not finite."""

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        bad = draws.key[-2:] == ("views", 2 * draws.count)
        return super().views(images * torch.nan if bad else images, draws, targets)


class Painter(nn.Module):
    """An encoder's maps and a decoder that paints pictures from them."""

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.decoder(self.encoder.maps(images)).tanh(), size=images.shape[2:])


class AdversarialModule(PretextModule):
    """An encoder, a decoder of its maps, and a discriminator of 8 px pictures."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Conv2d(encoder.num_features, encoder.channels, 1)
        convolution = nn.Conv2d(encoder.channels, 4, 3, 2, 1)
        self.discriminator = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 1))
        initialise(self.decoder, 0, "toy decoder")
        initialise(self.discriminator, 0, "toy discriminator")


class Adversarial(Toy):
    """Paints the hidden half of a picture against a discriminator (as context encoders do): two optimizers."""

    measured, score, higher_is_better = ("error",), "error", False

    def module(self, encoder: Encoder) -> AdversarialModule:
        return AdversarialModule(encoder)

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        """Pictures without one half, which a draw decides, and the pictures."""
        right = draws.integers("half", 2).to(images.device)[:, None, None, None] == 1
        second = torch.arange(images.shape[-1], device=images.device) >= images.shape[-1] // 2
        return torch.where(right == second, 0.0, images), images

    def steps(self, module: PretextModule) -> Sequence[OptimizerStep]:
        assert isinstance(module, AdversarialModule)
        painter = Painter(module.encoder, module.decoder)

        def discriminate(network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
            with torch.no_grad():
                painted = painter(views[0])
            real, fake = network(torch.cat([views[1], painted])).squeeze(1).chunk(2)
            losses = F.softplus(-real) + F.softplus(fake)
            return TaskLosses(losses, {"d_loss": losses.mean()})

        def paint(network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
            painted = network(views[0])
            errors = (painted - views[1]).square().mean((1, 2, 3))
            losses = errors + 0.1 * F.softplus(-module.discriminator(painted)).squeeze(1)
            return TaskLosses(losses, {"error": errors.mean()})

        return [
            OptimizerStep("discriminator", module.discriminator, discriminate, lr_factor=0.5, betas=(0.5, 0.999)),
            OptimizerStep("painter", painter, paint),
        ]

    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        assert isinstance(module, AdversarialModule)
        painted = Painter(module.encoder, module.decoder)(views[0])
        return [(painted - views[1]).square().mean((1, 2, 3))]


class ClustersModule(PretextModule):
    """An encoder under a linear head over the clusters."""

    def __init__(self, encoder: Encoder, clusters: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.num_features, clusters)
        initialise(self.head, 0, "toy")

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)).float()


class Clusters(Toy):
    """Predicts the cluster of a picture's features, which is found anew (as DeepCluster does)."""

    measured, score, higher_is_better, relabels = ("confidence",), "confidence", True, True
    clusters = 3

    def module(self, encoder: Encoder) -> ClustersModule:
        return ClustersModule(encoder, self.clusters)

    def views(self, images: Tensor, draws: Draws, targets: Tensor | None = None) -> Views:
        return (images,) if targets is None else (images, targets)

    def losses(self, network: nn.Module, views: Views, gather: Gather) -> TaskLosses:
        images, targets = views
        losses = F.cross_entropy(network(images), targets, reduction="none")
        return TaskLosses(losses, {"loss": losses.mean()})

    def measures(self, module: PretextModule, views: Views) -> Sequence[Tensor]:
        return [module(views[0]).softmax(1).amax(1)]

    def relabelled(self, module: PretextModule, seed: int) -> None:
        """New clusters have other numbers, so the head begins anew."""
        assert isinstance(module, ClustersModule)
        initialise(module.head, seed, "toy")

    def targets(self, features: np.ndarray, seed: int) -> np.ndarray:
        """Lloyd's algorithm from pictures that the seed chooses."""
        chosen = np.random.default_rng(seed).choice(len(features), self.clusters, replace=False)
        centres = features[chosen].astype(np.float64)
        for _ in range(5):
            nearest = ((features[:, None] - centres) ** 2).sum(2).argmin(1)
            centres = np.stack(
                [features[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(self.clusters)]
            )
        return nearest.astype(np.int32)


TOYS: dict[str, type[PretextTask]] = {
    "contrast": Contrast,
    "contrast_within_rank": ContrastWithinRank,
    "queue": Queue,
    "queue_with_a_bad_batch": QueueWithABadBatch,
    "adversarial": Adversarial,
    "clusters": Clusters,
}
