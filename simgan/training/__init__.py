"""Config, game, step, history, schedule, losses, health."""
