"""Scores an encoder by linear and k-NN probes: ``accelerate launch -m selfsup.probe data=DIR encoder=RUN``.

Classifiers on frozen features are trained on DIR/train with all its labels and scored on DIR/test. Labels are read for
this score only and do not influence training. Every score is given with its protocol.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from cluster_jobs.cli.config import MISSING, CommandKeys, command, option
from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import write_json
from cluster_jobs.core.output_directory import OutputDirectory
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import child
from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Section
from selfsup.encoders.feature_table import TABLE, features_of

QUERIES, BANK = 1024, 65536  # rows and columns of a block of the similarity matrix


@dataclass
class ProbeConfig(CommandKeys):
    """Scores an encoder by linear and nearest-neighbour classifiers on its frozen features."""

    data: str = option(MISSING, "directory that holds the shard directories train and test", path=True)
    encoder: str = option(
        MISSING, "run directory, safetensors or TorchScript file, or a directory with train.npy and test.npy", path=True
    )
    out: str = option("", "directory for probe.json and the report; by default the encoder's directory", path=True)
    neighbours: int = option(20, "neighbours that vote")
    temperature: float = option(0.07, "a vote weighs exp(cosine / temperature)")
    regularisation: float = option(1.0, "inverse strength C of the linear classifier's L2 penalty")


@command(ProbeConfig)
def main(config: ProbeConfig) -> None:
    for name in ("neighbours", "temperature", "regularisation"):
        if not getattr(config, name) > 0:
            raise UserError(f"{name}={getattr(config, name)}: expected a positive number")
    if config.validate:
        return
    job, encoder = Job.open(config), Path(config.encoder)
    splits = {split: Shards(child(config.data, split)) for split in ("train", "test")}
    if not encoder.exists():  # its directory is not made for probe.json
        raise UserError(f"encoder={config.encoder!r}: no such run directory or file")
    out = Path(config.out or (encoder if encoder.is_dir() else encoder.parent))
    with OutputDirectory(out).locked(job.on_main):
        probe(config, splits, out, job)


def probe(config: ProbeConfig, splits: dict[str, Shards], out: Path, job: Job) -> None:
    """Scores the encoder; the main rank writes probe.json and the section of the report to ``out``, and prints them."""
    train, train_labels = labelled_features(config.encoder, "train", splits["train"], job)
    test, test_labels = labelled_features(config.encoder, "test", splits["test"], job)
    if not job.is_main:
        return
    linear_protocol = f"multinomial logistic regression, L2, C={config.regularisation:g}, standardised features"
    knn_protocol = f"k={config.neighbours}, cosine, T={config.temperature:g}"
    scores: dict[str, float | None] = {"linear": None, "knn": None}
    if len(test_labels) and len(np.unique(train_labels)) > 1:
        predicted = linear(train, train_labels, test, config.regularisation)
        scores["linear"] = float((predicted == test_labels).mean())
        predicted = knn(train, train_labels, test, config.neighbours, config.temperature, job.device)
        scores["knn"] = float((predicted == test_labels).mean())
    counts = {"train": len(train_labels), "test": len(test_labels)}
    protocols = {"linear": linear_protocol, "knn": knn_protocol}
    write_json(out / "probe.json", {"scores": scores, "protocols": protocols, "samples": counts, "data": config.data})
    rows = [[name, protocols[name], *counts.values(), readable(score)] for name, score in scores.items()]
    columns = ["probe", "protocol", "train", "test", "top-1 accuracy"]
    text = f"Frozen features of {config.encoder}, all labels of train, scored on test."
    Section("probe", title="Encoder probe", text=text, columns=columns, rows=rows).write(out)
    for row in rows:
        print(f"{row[0]}: {row[-1]} ({row[1]}; {row[2]} train, {row[3]} test)")


def readable(score: float | None) -> str:
    """A score as text; n/a without labels."""
    return "n/a" if score is None else f"{score:.4f}"


def labelled_features(encoder: str, split: str, shards: Shards, job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) float32 and labels (n,) of the samples of a split that have a label."""
    table = Path(encoder) / f"{split}{TABLE}"
    features = features_of(str(table) if table.is_file() else encoder, shards, job)
    labels = np.asarray(shards.hidden_labels())
    known = np.flatnonzero(labels >= 0)
    return features[known], labels[known]


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float) -> np.ndarray:
    """Predicts labels (m,) of test features (m, F) by logistic regression on train features (n, F)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    return model.fit(train, labels).predict(test)


@torch.no_grad()
def knn(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int, temperature: float, device: torch.device | str
) -> np.ndarray:
    """Predicts labels (m,) of test features (m, F) by the weighted votes of the k nearest (Wu et al. 2018, eq. 6)."""
    bank = F.normalize(torch.tensor(train, device=device))
    answers = torch.tensor(labels, dtype=torch.int64, device=device)
    classes, predicted = int(labels.max()) + 1, []
    for start in range(0, len(test), QUERIES):
        queries = F.normalize(torch.tensor(test[start : start + QUERIES], device=device))
        similar = queries.new_empty((len(queries), 0))
        near = answers.new_empty((len(queries), 0))
        for first in range(0, len(bank), BANK):
            block = queries @ bank[first : first + BANK].T
            candidates = torch.cat([similar, block], 1)
            indices = torch.arange(first, first + block.shape[1], device=device).expand(len(queries), -1)
            similar, chosen = candidates.topk(min(k, candidates.shape[1]))
            near = torch.cat([near, indices], 1).gather(1, chosen)
        votes = queries.new_zeros((len(queries), classes))
        votes.scatter_add_(1, answers[near], ((similar - 1) / temperature).exp())
        predicted.append(votes.argmax(1).cpu().numpy())
    return np.concatenate(predicted) if predicted else np.empty(0, np.int64)


if __name__ == "__main__":
    sys.exit(main())
