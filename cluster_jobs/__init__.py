"""How work becomes a cluster job: shards, streams, runs, checkpoints, pipelines, reports. Knows nothing about GANs."""
