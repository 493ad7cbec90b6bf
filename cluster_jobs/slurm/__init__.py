"""Stages -> Slurm jobs (submit, cancel, resubmit)."""
