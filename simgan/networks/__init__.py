"""The networks: the refiner R, the discriminator D, and how a trained refiner is loaded and applied."""
