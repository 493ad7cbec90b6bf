"""Compares the scores of the methods in a study (one per row), pairing runs by seed; for `s3gan.compare`."""
