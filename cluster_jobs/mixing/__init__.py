"""Makes one pool out of several; used by the command `cluster_jobs.mix`."""
