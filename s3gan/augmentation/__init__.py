"""DiffAugment, ADA."""
