"""Rank, collectives, batch split, all-reduced batch norm."""
