"""Page and score (turing)."""
