"""The infrastructure of training jobs: shards, streams, runs, checkpoints, pipelines, reports. Independent of GANs."""
