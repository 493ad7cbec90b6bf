"""Refines simulated images to look real and keep their labels (SimGAN: Shrivastava et al. 2017, arXiv:1612.07828)."""
