"""Conditional GANs from few labels."""
