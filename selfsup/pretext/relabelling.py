"""Training targets that a pretext task computes again at a cadence, for example clusters of its own features.

Current targets depend only on the last relabelling, which depends only on the weights at that time: a run that is
killed computes the same targets again, so that a relabelling needs no checkpoint of its own. Targets are stored in
RUN/clusters/ like the clusters of self-conditioned GANs (`cluster_jobs.training.image_clusters`).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.shards import Shards
from cluster_jobs.training import image_clusters
from cluster_jobs.training.run import Run, Stateful
from selfsup.encoders.feature_table import extract
from selfsup.pretext.config import PretrainConfig
from selfsup.pretext.protocol import PretextModule, PretextTask


class Relabelling:
    """The targets of a task by sample index, computed before the first step and then every `relabel_nimg` images.

    Does nothing for a task that does not relabel. A relabelling costs a read and a forward pass of every training
    picture; the main rank holds the features of all of them meanwhile.

    Args:
        module: of the task; the targets are made of its encoder's features.
        indices: the samples that are trained on, ascending int64.
    """

    def __init__(
        self, run: Run[PretrainConfig], task: PretextTask, module: PretextModule, shards: Shards, indices: np.ndarray
    ) -> None:
        self.run, self.task, self.module, self.shards, self.indices = run, task, module, shards, indices
        self.nimg, self.sha256 = image_clusters.NEVER, ""
        self._targets: np.ndarray | None = None

    @property
    def state(self) -> dict[str, Stateful]:
        """What a checkpoint holds of it."""
        return {image_clusters.STATE_NAME: self} if self.task.relabels else {}

    def state_dict(self) -> dict[str, Any]:
        return {"nimg": self.nimg, "sha256": self.sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nimg, self.sha256 = image_clusters.NEVER, ""
        self._targets = None
        if state["nimg"] != image_clusters.NEVER:
            self._adopt(state["nimg"], state["sha256"])

    def update(self, nimg: int) -> dict[str, float]:
        """Computes targets if they are due before the step at `nimg` images; returns metrics. Every rank must call
        this.
        """
        due = self._targets is None or (nimg > 0 and self.run.due(self.run.config.relabel_nimg, nimg))
        if not (self.task.relabels and due):
            return {}
        features, before = self._features(), self._targets
        self.run.on_main(lambda: self._write(nimg, features))
        self._adopt(nimg)
        if before is None:
            return {}
        with torch.no_grad():
            self.task.relabelled(self.module, derive_seed(self.run.config.seed, "relabelled", nimg))
        changed = float(np.mean(self._targets[self.indices] != before[self.indices]))  # type: ignore[index]
        return {"targets/changed": changed}

    def of(self, indices: Tensor) -> Tensor | None:
        """The targets (n,) int64 of samples (n,) int64, on the device; None for a task that does not relabel."""
        if self._targets is None:
            return None
        return torch.from_numpy(self._targets[indices.numpy()].astype(np.int64)).to(self.run.device, non_blocking=True)

    def _features(self) -> np.ndarray:
        """Features (n, F) float32 of the training images in their order, on the main rank; none on the others."""
        encoder, blocks = self.module.encoder, []
        was_training = encoder.training
        encoder.eval()
        damaged = self.run.config.damaged.name
        for _, features in extract(encoder, self.shards, self.run, indices=self.indices, damaged=damaged):
            gathered = self.run.gather(features.contiguous())
            if self.run.is_main:
                blocks.append(gathered.cpu().numpy())
        encoder.train(was_training)
        return np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)

    def _write(self, nimg: int, features: np.ndarray) -> None:
        targets = np.full(len(self.shards), -1, np.int32)
        targets[self.indices] = self.task.targets(features, derive_seed(self.run.config.seed, "targets", nimg))
        image_clusters.write_clusters(self.run.dir, nimg, targets, {})
        image_clusters.prune(self.run.dir, nimg, [int(path.stem) for path in self.run.store.paths()])

    def _adopt(self, nimg: int, sha256: str | None = None) -> None:
        self._targets, facts = image_clusters.read_clusters(self.run.dir, nimg, sha256)
        self.nimg, self.sha256 = nimg, facts["sha256"]
