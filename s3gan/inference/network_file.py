"""`RUN/network.json`: what networks a run of s3gan.train has, and the same networks built again, untrained."""

from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.training.image_clusters import file_of, named_by, nimg_of_clusters, read_facts
from s3gan.networks import NETWORKS, Discriminator, Generator, HeadPlan

FLAGS = ("rotation", "predictor")  # auxiliary heads that are stored as true or false


def build_generator(network: dict[str, Any]) -> Generator:
    """An untrained generator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    return NETWORKS[network["network"]].generator(*of, normalise=network["g_spectral_norm"], embedding_std=0)


def build_discriminator(network: dict[str, Any]) -> Discriminator:
    """An untrained discriminator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    plan = heads_from_json(network["heads"], network["classes"])
    return NETWORKS[network["network"]].discriminator(*of, plan, normalise=network["d_spectral_norm"])


def heads_to_json(plan: HeadPlan) -> dict[str, Any]:
    """A discriminator's heads as `network.json` has them.

    The rotation head and the predictor are stored as true or false, any other auxiliary head as its number of outputs.
    """
    flags = {name: name in plan.auxiliary for name in FLAGS}
    others = {name: outputs for name, outputs in plan.auxiliary.items() if name not in FLAGS}
    return {"projection": plan.projection, **flags, "soft_prediction": plan.soft_prediction, **others}


def heads_from_json(record: dict[str, Any], classes: int) -> HeadPlan:
    """What `heads_to_json` was given, for a discriminator of images with so many classes."""
    outputs = {name: 4 if name == "rotation" else classes for name in FLAGS}
    heads = {name: value for name, value in record.items() if name not in ("projection", "soft_prediction") and value}
    auxiliary = {name: outputs.get(name, value) for name, value in heads.items()}
    return HeadPlan(record["projection"], auxiliary, record["soft_prediction"])


def read_network(run: Path, checkpoint: Path | str | None = None) -> dict[str, Any]:
    """`RUN/network.json`: sizes, classes, their counts and the label table.

    In a run that re-clusters, counts, weights and table are those of the clusters that the checkpoint at this path was
    trained with, or the newest.

    Raises:
        UserError: there is no run of s3gan.train, or the checkpoint's clusters are gone.
    """
    if not (run / "network.json").is_file():
        raise UserError(f"run={str(run)!r}: expected a run directory of s3gan.train (it holds no network.json)")
    network = read_json(run / "network.json")
    if network.get("network") not in NETWORKS:
        raise UserError(
            f"{run / 'network.json'}: network {network.get('network')!r}, expected one of {', '.join(NETWORKS)} "
            "(the run was made by another version)"
        )
    return network | _changed_by_clusters(run, None if checkpoint is None else Path(checkpoint))


def _changed_by_clusters(run: Path, checkpoint: Path | None) -> dict[str, Any]:
    """What the clusters of a checkpoint, None for the newest clusters, change of RUN/network.json: {} where there are
    none.

    Raises:
        UserError: the clusters of the checkpoint are gone, or others now.
    """
    named = (nimg_of_clusters(run), None) if checkpoint is None else named_by(checkpoint)
    clusters_nimg, sha256 = named or (None, None)
    if clusters_nimg is None:
        return {}
    facts = read_facts(run, clusters_nimg, sha256)
    table = {**facts["label_table"], "path": str(file_of(run, clusters_nimg, "parquet"))}
    return {"class_counts": facts["class_counts"], "fake_weights": facts["fake_weights"], "label_table": table}
