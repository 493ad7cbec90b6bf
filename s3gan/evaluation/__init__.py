"""Scores a run or a pool against real images, for `s3gan.evaluate`: tasks, their scores, scores.json, the report."""
