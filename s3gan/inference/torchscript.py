"""A run's generator as TorchScript, for programs that have torch and nothing of this project."""

import io
from pathlib import Path

import torch

from cluster_jobs.core.files import make_parent, write_atomically
from s3gan.inference.loading import load_generator


def export_generator(run: Path | str, device: torch.device | str = "cpu") -> Path:
    """Writes `RUN/export/generator.pt`, TorchScript that needs nothing but torch.

    `torch.jit.load(path)(z, labels)` with z (N, z_dim) float32 ~ N(0, I) and labels (N,) int64 gives images
    (N, C, H, W) float32 in [-1, 1]; `RUN/network.json` has `z_dim` and the classes' names.
    It is on the CPU; `device` computes the standing statistics where the run keeps none of this checkpoint yet.
    """
    run = Path(run)
    generator = load_generator(run, device=device)[0].cpu()
    example = torch.zeros(2, generator.z_dim), torch.zeros(2, dtype=torch.int64)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(generator, example), buffer)
    path = run / "export" / "generator.pt"
    make_parent(path)
    write_atomically(path, buffer.getvalue())
    return path
