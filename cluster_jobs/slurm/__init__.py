"""Runs the stages of a pipeline as Slurm jobs (submit, cancel, resubmit)."""
