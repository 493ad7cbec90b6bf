"""Generated images next to the real ones nearest to them in pixel space: does the generator copy?

For comparison, the same search is run for some real images, excluding the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster_jobs.distributed.job import Job
from cluster_jobs.reporting.section import Picture, Section
from s3gan.pictures.pixel_knn import Nearest, search
from s3gan.pictures.real import RealImages
from s3gan.pictures.sheet import sheet_png

NEIGHBOURS = 8
CHUNK = 256  # real images read at once
SECTION = ("neighbours", "Nearest real images")
ROWS = 10  # samples of a picture
SHARES = {"smallest": 0.0, "1 %": 0.01, "10 %": 0.1, "median": 0.5}

LOOK = (
    "Each row begins with a generated image; beside it stand the real images nearest to it, the number is the distance "
    "to the first. A sample that repeats one real image in its details, not only in shape and brightness, is a copy. "
    "The second picture shows the samples that are most likely copies: the distance to the nearest real image is "
    "smallest beside the mean distance to the nearest eight (after Carlini et al. 2023, arXiv 2301.13188). The table "
    "compares with real images that take the place of a sample: samples that are much nearer to real images than those "
    "are to each other are suspicious; samples much farther away do not look like the data. Pixel distances miss a "
    "copy that is shifted or mirrored."
)


@dataclass(frozen=True)
class Neighbours:
    """What is nearest: `distances` (N, k) float64 root mean square differences in grey levels (0 to 255), ascending;
    `indices` (N, k) int64 of real images."""

    distances: np.ndarray
    indices: np.ndarray

    @property
    def closeness(self) -> np.ndarray:
        """(N,) in [0, 1]: the nearest distance over the mean of all k; 0 for a copy, near 1 for just another image."""
        mean = self.distances.mean(1)
        return np.divide(self.distances[:, 0], mean, out=np.zeros_like(mean), where=mean > 0)


def compare(
    samples: np.ndarray, controls: np.ndarray, real: RealImages, candidates: np.ndarray, indices: np.ndarray, job: Job
) -> tuple[Neighbours, Neighbours]:
    """What is nearest to the samples, and to some real images as controls; of these without themselves.

    Every rank must call this: the candidates are read once, and shared out over the ranks.

    Args:
        samples, controls: uint8 (N, C, H, W) and (M, C, H, W).
        candidates: indices of the real images to search, at least 2.
        indices: of the controls.
    """
    queries = np.concatenate([samples, controls])
    k = min(NEIGHBOURS, len(candidates) - 1)
    nearest = _find(queries, real, candidates, k + 1, job)
    of_samples = Neighbours(nearest.distances[: len(samples), :k], nearest.indices[: len(samples), :k])
    of_real = Neighbours(nearest.distances[len(samples) :], nearest.indices[len(samples) :])
    return of_samples, without_themselves(of_real, indices)


def _find(queries: np.ndarray, real: RealImages, candidates: np.ndarray, k: int, job: Job) -> Neighbours:
    """The k nearest of the candidates to each query."""
    flat = torch.from_numpy(queries).flatten(1).to(job.device)
    starts = range(job.rank * CHUNK, len(candidates), job.world * CHUNK)
    tracked = job.track(starts, len(candidates), "images", "nearest real images", CHUNK * job.world)

    def chunk(start: int) -> tuple[Tensor, Tensor]:
        indices = candidates[start : start + CHUNK]
        return torch.from_numpy(real.read(indices)).flatten(1), torch.from_numpy(indices)

    mine = search(flat, k, map(chunk, tracked))
    whole = Nearest(flat, k)
    for rank in range(job.world):
        whole.add(_of_rank(mine.distances, rank, job), _of_rank(mine.indices, rank, job))
    return Neighbours(np.sqrt(whole.distances.numpy() / flat.shape[1]), whole.indices.numpy())


def _of_rank(table: Tensor, rank: int, job: Job) -> Tensor:
    """The table (N, k) of one rank, on all."""
    sent = table if job.rank == rank else table[:0]
    return job.gather(sent.to(job.device)).cpu()


def without_themselves(nearest: Neighbours, indices: np.ndarray) -> Neighbours:
    """What is nearest to real images (indices) other than themselves: (N, k) becomes (N, k - 1)."""
    others = nearest.indices != indices[:, None]
    others[others.all(1), -1] = False  # beside many equal images an image may not be among its own neighbours
    shape = len(indices), -1
    return Neighbours(nearest.distances[others].reshape(shape), nearest.indices[others].reshape(shape))


def section(
    samples: np.ndarray,
    labels: np.ndarray,
    nearest: Neighbours,
    baseline: Neighbours,
    real: RealImages,
    candidates: int,
    classes: Sequence[int],
    names: Sequence[str],
) -> Section:
    """Pictures of the first sample of each shown class and of the likeliest copies, and quantiles of the distances.

    Args:
        samples: uint8 (N, C, H, W) with labels (N,).
        nearest: of the samples; `baseline`: of real images.
        candidates: real images that were searched.
    """
    typical = first_samples(labels, classes)[:ROWS]
    closest = np.argsort(nearest.closeness, kind="stable")[:ROWS]
    pictures = [
        Picture(
            "neighbours.png",
            "one sample of each class, not picked",
            _rows(samples, labels, nearest, real, typical, names),
        ),
        Picture(
            "closest.png",
            "of all samples those that are most likely copies",
            _rows(samples, labels, nearest, real, closest, names),
        ),
    ]
    tables = {
        "distance of samples": nearest.distances[:, 0],
        "distance of real images": baseline.distances[:, 0],
        "closeness of samples": nearest.closeness,
        "closeness of real images": baseline.closeness,
    }
    rows = [
        [name, len(values), *(float(np.quantile(values, share)) for share in SHARES.values())]
        for name, values in tables.items()
    ]
    text = (
        f"{LOOK}\n\nSearched: {candidates:,} of the {real.described}. Distances are root mean square differences in "
        "grey levels (0 to 255); closeness is the distance to the nearest over the mean distance to the nearest eight."
    )
    return Section(*SECTION, text, pictures, ["", "images", *SHARES], rows)


def first_samples(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The first sample of each of the classes; where few samples have none of these, of all classes. int64."""
    numbers, firsts = np.unique(labels, return_index=True)
    first_of = dict(zip(numbers.tolist(), firsts.tolist(), strict=True))
    return np.array([first_of[number] for number in classes if number in first_of] or firsts, np.int64)


def _rows(
    samples: np.ndarray,
    labels: np.ndarray,
    nearest: Neighbours,
    real: RealImages,
    chosen: np.ndarray,
    names: Sequence[str],
) -> bytes:
    """Each chosen sample and its neighbours as a row."""
    columns = 1 + nearest.indices.shape[1]
    tiles = [np.concatenate([samples[[index]], real.read(nearest.indices[index])]) for index in chosen]
    rows = [f"{names[labels[index]]}  {nearest.distances[index, 0]:.1f}" for index in chosen]
    headers = ["sample", *(str(number) for number in range(1, columns))]
    return sheet_png(np.concatenate(tiles), columns, rows=rows, headers=headers)
