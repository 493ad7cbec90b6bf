"""Simulators: each draws labelled images from nothing, the same ones for the same (seed, split, index)."""
