"""The page of a visual Turing test and its score, for cluster_jobs.turing."""
