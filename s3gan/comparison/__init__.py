"""Scores of a study compared row by row and seed by seed: reading, ratios, tables, a figure (compare)."""
