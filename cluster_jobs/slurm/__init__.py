"""Runs the stages of a pipeline as Slurm jobs; used by the commands `cluster_jobs.submit`, `cancel` and `resubmit`."""
