"""Pipelines, sites and recipes that ship with the package, as YAML."""
