"""Compares shards with their index, for cluster_jobs.verify."""
