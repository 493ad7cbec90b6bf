"""A trained generator: loading, standing statistics, samples keyed by their index, TorchScript."""
