"""Config, game, step, conditioning, health, validation, re-clustering."""
