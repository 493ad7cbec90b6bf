"""A trained generator: load, standing statistics, index-keyed sampling, TorchScript."""
