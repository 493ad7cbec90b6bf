"""Recipes of the simgan commands."""
