"""Training of a conditional GAN: its keys, networks, conditions, steps, health, scores and re-clustering (train)."""
