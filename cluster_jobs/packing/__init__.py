"""Writes or indexes images as shards, for cluster_jobs.pack and simgan.pack."""
