"""Where shards lie: local directory, URL, cache."""
