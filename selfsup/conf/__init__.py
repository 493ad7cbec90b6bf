"""Recipes of the selfsup commands: ``+recipe=NAME`` reads ``recipe/NAME.yaml``."""
