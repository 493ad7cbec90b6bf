"""Simulators: each draws labelled images; an image is a function of (seed, split, index)."""
