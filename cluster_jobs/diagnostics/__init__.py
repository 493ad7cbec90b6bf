"""The checks of cluster_jobs.doctor."""
