"""Labels that are not given: one for all, random ones, clusters of features, a classifier's (S4L, Zhai et al. 2019)."""

from pathlib import Path

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import make_parent
from cluster_jobs.core.seeds import key_hash
from cluster_jobs.data.label_table import LabelTable, aligned_labels, read_table
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import scan
from cluster_jobs.distributed.job import Job
from selfsup.encoders.feature_table import features_of
from selfsup.encoders.loading import load_encoder
from selfsup.encoders.resnet import Encoder
from selfsup.labelling.classifier import Classifier, ClassifierRecipe, ShardPictures, fit, predict, save_classifier
from selfsup.labelling.clustering import Space, check_clusters, kmeans

BLOCK = 256  # images per forward pass on every rank, so that results do not depend on the number of ranks


def single(shards: Shards) -> LabelTable:
    """One label for every sample: the unconditional baseline."""
    return _whole_table(shards, np.zeros(len(shards), np.int32), "single", ["all"])


def random(shards: Shards, classes: int, seed: int) -> LabelTable:
    """A label in [0, classes) for every sample, a hash of (seed, key)."""
    if classes < 1:
        raise UserError(f"{shards.directory!r} names no classes: clusters=N says how many random labels there are")
    names = [f"random {number}" for number in range(classes)]
    table = _whole_table(shards, np.zeros(len(shards)), "random", names)
    table.labels = np.array([key_hash(f"random labels/{seed}", key) % classes for key in table.keys], np.int32)
    return table


def cluster(shards: Shards, encoder: str, clusters: int, space: Space, seed: int, job: Job) -> LabelTable | None:
    """Clusters of the encoder's features. All ranks compute features; the main rank clusters, the others get None.

    The confidence is 1 / (1 + d²/σ²), d the distance to the centroid and σ² the mean of d² over the data set.
    """
    check_clusters(clusters, len(shards))
    features = features_of(encoder, shards, job)
    if not job.is_main:
        return None
    clustering = kmeans(features, clusters, seed=seed, space=space, threads=torch.get_num_threads())
    names = [f"cluster {number}" for number in range(clusters)]
    table = _whole_table(shards, clustering.labels, "cluster", names)
    table.confidence = (1 / (1 + clustering.distances / max(clustering.inertia, 1e-12))).astype(np.float32)
    return table


def classify(
    shards: Shards, budget: str, encoder: str, recipe: ClassifierRecipe, *, soft: bool, seed: int, keep: Path, job: Job
) -> LabelTable:
    """A label for every sample from a classifier trained on the budget; the budget keeps its true labels.

    Args:
        budget: path of the label table of known labels.
        encoder: whose weights the classifier starts from; "" starts from scratch.
        recipe: with ``rotation_weight`` above 0, a rotation loss over all images is added (S4L).
        soft: whether the table holds the probabilities of all classes.
        keep: file for the classifier; it is written before the table.
    """
    shards.check_square()
    known = read_table(budget)
    if set(known.origin.tolist()) - {"true"}:
        raise UserError(f"labels={budget!r}: holds labels that are not true ones; give the table of reveal or import")
    labels = aligned_labels(known, shards)
    labelled = np.flatnonzero(labels >= 0)
    if not labelled.size:
        raise UserError(f"labels={budget!r}: holds no label to learn from")
    init = load_encoder(encoder, shards.channels, "cpu")[0] if encoder else None
    if not isinstance(init, Encoder | None):
        raise UserError(f"encoder={encoder!r}: TorchScript cannot be fine-tuned; expected a run or a safetensors file")
    classifier = fit(
        ShardPictures(shards, labelled),
        labels[labelled],
        len(known.classes),
        recipe,
        seed=seed,
        device=job.device,
        init=init,
        unlabelled=ShardPictures(shards),
        job=job,
    )
    classifier.facts = {
        "class_names": known.classes,
        "data_fingerprint": shards.fingerprint,
        "budget": {name: known.metadata.get(name) for name in ("method", "fraction", "seed")} | {"rows": len(known)},
    }
    job.on_main(lambda: _keep(keep, classifier))
    batches = scan(shards, BLOCK * job.world, job.rank, job.world)
    tracked = job.track(batches, len(shards), "images", "inferring labels", BLOCK * job.world)
    logits = torch.cat(
        [job.gather(predict(classifier, [batch.images], job.device).to(job.device)).cpu() for batch in tracked]
    )
    probabilities = logits.double().softmax(dim=1).float().numpy()
    fitted = float((probabilities[labelled].argmax(axis=1) == labels[labelled]).mean())
    probabilities[labelled] = np.eye(len(known.classes), dtype=np.float32)[labels[labelled]]
    table = _whole_table(shards, probabilities.argmax(axis=1), "inferred", known.classes)
    table.origin = np.where(labels >= 0, "true", "inferred")
    table.confidence = probabilities.max(axis=1)
    table.probabilities = probabilities if soft else None
    table.metadata |= {"fraction": known.metadata.get("fraction"), "budget_rows": len(known), "budget_fitted": fitted}
    return table


def _keep(path: Path, classifier: Classifier) -> None:
    make_parent(path)
    save_classifier(path, classifier)


def _whole_table(shards: Shards, labels: np.ndarray, origin: str, classes: list[str]) -> LabelTable:
    return LabelTable(
        keys=shards.keys(),
        labels=labels.astype(np.int32),
        origin=np.full(len(shards), origin),
        confidence=np.ones(len(shards), np.float32),
        metadata={"classes": list(classes)},
    )
