"""Encoders: residual networks, loading them from files, and tables of their features."""
