"""Simulated images made real, labels kept (SimGAN: Shrivastava et al., CVPR 2017, arXiv:1612.07828)."""
