"""Readers of published data sets, as sources that ``simgan.pack`` writes to shards."""
