"""One NumPy file: `images` uint8 (N, H, W, C), `labels` int64 (N,), `class_names` and `source` as text.

`numpy.load(FILE)` reads it, with allow_pickle=False; so does a reader of zip files. Writing holds one image at a time:
a member of the zip is an array's header and then its bytes.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.output_directory import OutputFile
from s3gan.pools.exported import Exported


def write(output: OutputFile, exported: Exported) -> bool:
    """Writes the file; False if it is there already.

    Raises:
        UserError: the file is something else, or a sample is damaged.
    """
    path = output.path
    source = json.dumps(exported.identity)
    if path.exists():
        if _source(path) == source:
            return False
        raise UserError(f"{output.name} is something else; choose a new file")
    partial = output.temporary()
    with open(partial, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in (
            ("labels", exported.labels),
            ("class_names", np.array(exported.class_names, np.str_)),
            ("source", np.array(source)),
        ):
            with archive.open(_member(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        _write_images(archive, exported)
    output.commit(partial)
    return True


def _write_images(archive: zipfile.ZipFile, exported: Exported) -> None:
    size, channels = exported.shards.size, exported.shards.channels
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(exported.indices), size, size, channels)}
    with archive.open(_member("images"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for chunk in exported.chunks():
            for number in chunk:
                member.write(np.ascontiguousarray(exported.image(number).transpose(1, 2, 0)).tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    """A member without the time of day: equal exports are equal files."""
    return zipfile.ZipInfo(f"{name}.npy")


def _source(path: Path) -> str | None:
    """What an earlier export wrote into the file; None if it is no such file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
