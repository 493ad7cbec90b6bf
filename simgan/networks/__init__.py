"""R, D, load a trained R."""
