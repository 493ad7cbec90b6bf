"""Is every shard what its index says (verify)."""
