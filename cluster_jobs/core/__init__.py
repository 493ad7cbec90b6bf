"""Errors, atomic files, locks, seeds, progress, worker processes, installed versions."""
