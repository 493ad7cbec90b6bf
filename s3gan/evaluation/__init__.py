"""What is scored, which parts, scores.json, summary (evaluate)."""
