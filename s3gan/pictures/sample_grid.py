"""The sample grid of a generator: one class per row, always the same noise."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cluster_jobs.core import seeds
from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_uint8
from cluster_jobs.reporting.grids import GAP, save_grid
from cluster_jobs.reporting.section import Picture, Section
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.inference.standing_statistics import settle
from s3gan.networks import Generator

ROWS, COLUMNS = 20, 10  # classes and samples of a class, at most


def save_samples(path: Path, average: Generator, weights: list[float] | None, seed: int) -> None:
    """Writes samples of a generator in training, which stays as it is; `weights` are those of `settle`."""
    generator = settle(copy.deepcopy(average), weights)
    _save(path, generator, seed)


def write_report(run: Path, seed: int, device: torch.device | str = "cpu") -> None:
    """Writes the report's section on a finished run: samples, and what each class was trained on."""
    generator, info = load_generator(run, device=device)
    network = read_network(run, info["path"])
    _save(run / "report" / "samples.png", generator, seed)
    names = network["class_names"]
    table = network["label_table"]
    Section(
        "samples",
        title="Generated samples by class",
        text=f"{info['nimg']:,} real images seen by the discriminator; conditions from "
        f"{'the label table ' + table['path'] if table else 'no label table'}; averaged generator, no truncation.",
        columns=["class", "real images"],
        rows=[[name, count] for name, count in zip(names, network["class_counts"], strict=True)],
        pictures=[Picture("samples.png", "one class a row, from the top: " + ", ".join(names[:ROWS]))],
    ).write(run)


def _save(path: Path, generator: Generator, seed: int) -> None:
    save_grid(path, draw_grid(generator, seed), COLUMNS, scale=_scale(generator.size))


def _scale(size: int) -> int:
    return 2 if size < 64 else 1


def read_samples(path: Path, network: dict[str, Any]) -> np.ndarray:
    """What `save_samples` wrote, as `draw_grid` gives it: uint8 (rows * COLUMNS, C, H, W). `network` is network.json.

    Raises:
        UserError: the picture is of another kind.
    """
    size, channels, rows = network["size"], network["channels"], min(network["classes"], ROWS)
    try:
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: no readable picture ({error})") from error
    scale, shape = _scale(size), (rows, size + GAP, COLUMNS, size + GAP, 3)
    expected = (scale * (rows * shape[1] - GAP), scale * (COLUMNS * shape[3] - GAP))
    if sheet.shape[:2] != expected:
        raise UserError(f"{path}: {sheet.shape[1]} x {sheet.shape[0]} px, expected {expected[1]} x {expected[0]} px")
    padded = np.pad(sheet[::scale, ::scale], ((0, GAP), (0, GAP), (0, 0)))
    tiles = padded.reshape(shape)[:, :size, :, :size, :channels].transpose(0, 2, 4, 1, 3)
    return tiles.reshape(rows * COLUMNS, channels, size, size)


@torch.no_grad()
def draw_grid(generator: Generator, seed: int) -> np.ndarray:
    """uint8 (rows * COLUMNS, C, H, W): a row for each of the first ROWS classes, each column with the same noise."""
    rows = min(generator.classes, ROWS)
    z = torch.randn(COLUMNS, generator.z_dim, generator=seeds.generator("cpu", seed, "samples"))
    labels = torch.arange(rows).repeat_interleave(COLUMNS)
    device = generator.device
    images: Tensor = generator(z.repeat(rows, 1).to(device), labels.to(device))
    return to_uint8(images).cpu().numpy()
