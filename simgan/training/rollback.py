"""A run of simgan.train is taken back when it is sick, and tells when R leaves its input behind."""

import json
from collections.abc import Mapping

import torch

from cluster_jobs.reporting.section import write_section
from cluster_jobs.training.rollback import Rollback
from cluster_jobs.training.run import Run
from simgan.training.config import TrainConfig
from simgan.training.health import Limits

SHOWN = 20  # lines of a table


class Health(Rollback):
    """Watches a run of simgan.train: takes it back when it is sick, and tells when R leaves its input behind."""

    def __init__(self, run: Run) -> None:
        assert isinstance(run.config, TrainConfig)
        self.config = run.config
        limits = Limits(self.config.min_d_loss, self.config.min_diversity)
        times, lr, window = self.config.rollback, self.config.rollback_lr, self.config.health_window
        super().__init__(run, limits, times=times, lr=lr, window=window)
        self._told = False

    def set_rates(self, optimizer_r: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer) -> None:
        """The learning rates after the roll-backs so far."""
        for optimizer, rate in ((optimizer_r, self.config.lr_r), (optimizer_d, self.config.lr_d)):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.factor

    def tell_change(self, nimg: int, means: Mapping[str, float] | None) -> None:
        """One line where R leaves its input behind, the first time in this life of the run."""
        change, limit = (means or {}).get("change/pixel", 0.0), self.config.max_change
        if change > limit and not self._told:
            self._told = True
            self.run.say(
                f"warning: {nimg:,} images: R leaves its input behind: it changes a pixel of [-1, 1] by {change:.3f} "
                f"in the mean (max_change={limit:g}); labels may not survive: raise regularisation="
            )

    def report_change(self) -> None:
        """A section of the report with the places where R had left its input behind, if any: from metrics.jsonl."""
        path, limit = self.run.dir / "metrics.jsonl", self.config.max_change
        if not (self.run.is_main and path.is_file()):
            return
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [(line["nimg"], f"{line['change/pixel']:.3f}") for line in lines if line.get("change/pixel", 0) > limit]
        if rows:
            write_section(
                self.run.dir,
                "drift",
                title="R leaves its input behind",
                text=f"In the mean R changes a pixel of [-1, 1] by more than max_change={limit:g}. What is drawn may "
                f"no longer be what the label says; a larger regularisation= holds R back. {len(rows)} lines of "
                "metrics.jsonl are above the limit; the table ends with the last of them.",
                columns=["images seen", "mean change of a pixel"],
                rows=rows[-SHOWN:],
            )
