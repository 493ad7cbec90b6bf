"""Feature tables: an encoder's features of every sample, extracted over all ranks, written and read.

A feature table is a .npy file, float32 (samples, features) in index order, which readers memory-map, and a .json file,
written last, that says which data and which encoder made it. Every key ``encoder=`` takes one in place of an encoder.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.core.output_directory import OutputFile
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import scan
from cluster_jobs.distributed.job import Job
from selfsup.encoders.loading import ScriptedEncoder, load_encoder
from selfsup.encoders.resnet import Encoder

BLOCK = 256  # images per forward pass, the last padded, so that features do not depend on the number of ranks
TABLE = ".npy"


@torch.no_grad()
def extract(
    encode: Callable[[torch.Tensor], torch.Tensor],
    shards: Shards,
    job: Job,
    *,
    indices: np.ndarray | None = None,
    block: int = BLOCK,
    damaged: str = "fatal",
    what: str = "features",
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """This rank's indices (n,) int64 and features (n, F) float32 on the device, block by block, in index order.

    Every rank makes the same number of steps; n may be 0.

    Args:
        encode: from images (block, C, H, W) float32 in [-1, 1] on the device to features (block, F).
        indices: of the samples, int64; all by default.
        block: images per forward pass, the last ones padded: results may depend on that number.
        damaged: as in the stream.
        what: names the progress bar.
    """
    count = len(shards) if indices is None else len(indices)
    batches = scan(shards, block * job.world, job.rank, job.world, indices, damaged=damaged)
    for batch in job.track(batches, count, "images", what, block * job.world):
        padded = batch.images.new_zeros((block, *batch.images.shape[1:]))
        padded[: len(batch.images)] = batch.images
        yield batch.indices.numpy(), encode(to_float(padded, job.device))[: len(batch.images)].float()


def write_features(
    output: OutputFile, encoder: Encoder | ScriptedEncoder, shards: Shards, facts: dict[str, Any], job: Job
) -> None:
    """Writes the table; each rank writes its own rows. Both files are renamed into place, the .json last."""
    unfinished, description = output.temporary(), output.path.with_suffix(".json")
    shape = (len(shards), encoder.num_features)

    def begin() -> None:
        np.lib.format.open_memmap(unfinished, "w+", np.float32, shape).flush()

    job.on_main(begin)
    rows = np.lib.format.open_memmap(unfinished, "r+")
    for indices, features in extract(encoder, shards, job):
        rows[indices] = features.cpu().numpy()
    rows.flush()
    job.barrier()
    if job.is_main:
        description.unlink(missing_ok=True)  # from here on the old table is invalid
        output.commit(unfinished)
        write_json(description, facts)
    job.barrier()


def read_features(path: Path, shards: Shards) -> np.ndarray:
    """The table (count, F) float32, memory-mapped.

    Raises:
        UserError: missing, unfinished, damaged, or made for other data.
    """
    facts = read_json(path.with_suffix(".json"))
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r}: unreadable feature table ({error})") from error
    if not isinstance(facts, dict) or facts.get("fingerprint") != shards.fingerprint:
        raise UserError(f"the feature table {str(path)!r} was made for other data than {shards.directory!r}")
    if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) != len(shards):
        raise UserError(f"{str(path)!r}: holds {rows.dtype} {rows.shape}, expected float32 ({len(shards)}, F)")
    return rows


def features_of(encoder: str, shards: Shards, job: Job) -> np.ndarray:
    """Features (count, F) float32 of every sample in index order, on every rank: of a feature table, or computed now.

    Raises:
        UserError: ``encoder`` cannot be loaded, or does not fit the shards.
    """
    if Path(encoder).suffix == TABLE:
        return read_features(Path(encoder), shards)
    loaded, _ = load_encoder(encoder, shards.channels, job.device, size=shards.size)
    blocks = [job.gather(features.contiguous()).cpu().numpy() for _, features in extract(loaded, shards, job)]
    return np.concatenate(blocks)
