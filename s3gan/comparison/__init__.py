"""Tables over rows and seeds (compare)."""
