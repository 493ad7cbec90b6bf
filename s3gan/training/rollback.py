"""A GAN's run is taken back when it diverges: `cluster_jobs.training.rollback` with its limits and what changes."""

from dataclasses import replace

from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.training.rollback import Rollback
from cluster_jobs.training.run import Run
from s3gan.training.config import TrainConfig
from s3gan.training.game import Game
from s3gan.training.health import Limits


class Health(Rollback):
    """Watches a run of s3gan.train and takes it back."""

    def __init__(self, run: Run) -> None:
        assert isinstance(run.config, TrainConfig)
        self.config = run.config
        limits = Limits(self.config.min_d_loss, self.config.max_d_loss, self.config.min_diversity)
        times, lr, window = self.config.rollback, self.config.rollback_lr, self.config.health_window
        super().__init__(run, limits, times=times, lr=lr, window=window)

    def attempt(self, game: Game) -> Game:
        """The game as it is played after the roll-backs so far: with draws of its own and lower learning rates."""
        for optimizer, rate in ((game.optimizer_g, self.config.g_lr), (game.optimizer_d, self.config.d_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.factor
        return (
            replace(game, fakes=replace(game.fakes, seed=derive_seed(self.config.seed, self.draws)))
            if self.draws
            else game
        )
