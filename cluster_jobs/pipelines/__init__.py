"""Pipelines: a YAML file of stages, run as processes of this machine (submit, status, logs)."""
