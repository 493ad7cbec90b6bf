"""Pipelines: a YAML file of stages, run as processes of this machine; used by `cluster_jobs.submit` and others."""
