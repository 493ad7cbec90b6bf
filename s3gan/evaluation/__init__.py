"""Scoring of a run or a pool against real images: tasks, their scores, scores.json, and the report (evaluate)."""
