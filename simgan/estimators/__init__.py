"""Networks that read labels off pictures, for scoring: what refined images are worth is what these learn."""
