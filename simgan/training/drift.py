"""The report on how much R changed images: the training steps in which it was so much that labels may not fit."""

import json
from pathlib import Path

from cluster_jobs.reporting.section import Section

ROWS = 20  # of the table, at most


def write_drift(run: Path, max_change: float) -> None:
    """Writes the section from the run's metrics.jsonl; none if R never changed a pixel by more than `max_change`.

    Args:
        max_change: limit of the mean |R(x) - x| of a pixel of [-1, 1].
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [(line["nimg"], f"{line['change/pixel']:.3f}") for line in lines if line.get("change/pixel", 0) > max_change]
    if rows:
        Section(
            "drift",
            title="R leaves its input behind",
            text=f"In the mean R changes a pixel of [-1, 1] by more than max_change={max_change:g}. What is drawn may "
            f"no longer be what the label says; a larger regularisation= holds R back. {len(rows)} lines of "
            "metrics.jsonl are above the limit; the table ends with the last of them.",
            columns=["images seen", "mean change of a pixel"],
            rows=rows[-ROWS:],
        ).write(run)
