"""ResNets, loading, feature tables."""
