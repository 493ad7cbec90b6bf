"""Scores of a study that never ran, as s3gan.evaluate would have written them: known numbers for known answers."""

from pathlib import Path
from typing import Any

from cluster_jobs.core.files import write_json

DETECTOR = "6b24ace0158f"


def scores(
    fd: float,
    *,
    intra: float | None = None,
    cas: float | None = None,
    detector: str = DETECTOR,
    count: int = 10_000,
    nimg: int = 256_000,
    draws: int = 1,
    budget: float | None = None,
    checkpoint: str = "c",
) -> dict[str, Any]:
    """A scores.json: the Frechet distance, where given the one within classes and the accuracies."""
    common = {"samples": count, "reference": 10_000, "detector": detector, "split": "test", "seed": 0}
    mean_of = {"draws": draws} if draws > 1 else {}
    name = f"fd_classifier{count // 1000}k"
    distances: dict[str, Any] = {
        name: {"name": name, "value": fd, **common, **mean_of},
        f"floor_{name}": {"name": name, "value": 0.05, **common},
    }
    parts = {"distances": distances}
    if intra is not None:
        name = "intra_fd_classifier10x500"
        parts["within_classes"] = {name: {"name": name, "value": intra, **common, "per_class": [intra], **mean_of}}
    if cas is not None:
        parts["cas"] = {
            "pool": {"accuracy": cas, "test_count": 10_000, "train_count": count, "classifier": checkpoint},
            "budget": {"n/a": "none"} if budget is None else {"accuracy": budget, "test_count": 10_000},
            "budget_and_pool": {"accuracy": 0.8, "test_count": 10_000},
            "all": {"accuracy": 0.9, "test_count": 10_000},
        }
    images = [
        {"checkpoint": f"{checkpoint}{k}", "nimg": nimg - 16_000 * k, "count": count, "balance": "table", "seed": 0}
        for k in range(draws)
    ]
    return {
        part: {
            "results": results,
            "draws": [{"inputs": {"images": draw, "real": ["f"]}, "results": {}} for draw in images],
        }
        for part, results in parts.items()
    }


def write(root: Path, row: str, seed: int, content: dict[str, Any]) -> Path:
    path = root / row / str(seed) / "scores.json"
    write_json(path, content)
    return path
