"""Readers of published data sets. Each is a source that ``simgan.pack`` writes to shards."""
