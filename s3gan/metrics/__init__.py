"""Scores of generated images: distances on a named detector's features, and classification accuracy."""
