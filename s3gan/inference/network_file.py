"""`RUN/network.json`: what networks a run of s3gan.train has, and the same networks built again, untrained."""

from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan.inference.cluster_files import changed_network
from s3gan.networks import NETWORKS, Discriminator, Generator, HeadPlan


def build_generator(network: dict[str, Any]) -> Generator:
    """An untrained generator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    return NETWORKS[network["network"]].generator(*of, normalise=network["g_spectral_norm"], embedding_std=0)


def build_discriminator(network: dict[str, Any]) -> Discriminator:
    """An untrained discriminator as `network.json` describes it."""
    of = network["size"], network["channels"], network["classes"], network["width"]
    plan = HeadPlan(**network["heads"])
    return NETWORKS[network["network"]].discriminator(*of, plan, normalise=network["d_spectral_norm"])


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
    return network | changed_network(run, None if checkpoint is None else Path(checkpoint))
