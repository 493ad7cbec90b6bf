"""The exported generator: nothing but torch is needed, and it draws what the run draws."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cluster_jobs.core.errors import UserError
from s3gan.inference.loading import load_generator
from s3gan.inference.torchscript import export_generator
from tests.s3gan.toy_run import draw, make_run


def test_an_export_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "export").write_text("in the way")
    with pytest.raises(UserError, match="cannot create the directory '.*/export'"):
        export_generator(run)


def test_the_export_needs_torch_alone_and_draws_the_same_images_at_any_batch_size(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = export_generator(run)
    assert path == run / "export" / "generator.pt"
    program = f"""
import sys, torch
generator = torch.jit.load({str(path)!r})
torch.manual_seed(5)
images = generator(torch.randn(6, 64), torch.tensor([0, 1, 2, 0, 1, 2]))
torch.save(images, {str(tmp_path / "images.pt")!r})
assert not [name for name in sys.modules if name.startswith(("s3gan", "selfsup", "cluster_jobs"))]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=280)
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    torch.testing.assert_close(images, draw(load_generator(run)[0]), rtol=1e-5, atol=1e-6)
