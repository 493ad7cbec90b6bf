"""Networks that estimate gaze or joints from images. Refined images are scored by how well these learn from them."""
