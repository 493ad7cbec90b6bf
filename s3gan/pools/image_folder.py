"""One directory per class: ``OUT/CLASS/KEY.png``, as torchvision's ImageFolder reads it, with portable file names.

Everything is written to ``.OUT.partial`` next to it, which is renamed at the end.
"""

import csv
import io
import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically, write_json
from cluster_jobs.core.output_directory import OutputFile
from cluster_jobs.data.images import encode_png
from s3gan.pools.exported import Exported

RECORD = "export.json"  # what was exported; the last thing that makes an export recognisable as this one
DONE = ".done"  # in the partial directory: how many images are written
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
CLASSES = "classes.csv"
# device names of Windows, and the two files beside the folders
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|export\.json|classes\.csv", re.IGNORECASE)
LONGEST = 200  # bytes of a name, which leaves room for an extension


def write(output: OutputFile, exported: Exported) -> bool:
    """Writes the directory, or resumes what a killed export left; False if it is there already.

    Raises:
        UserError: ``out=`` holds something else, two classes or samples would share a name, or a sample is damaged.
    """
    out = output.path
    if out.is_dir() and any(out.iterdir()):
        if (out / RECORD).is_file() and read_json(out / RECORD) == exported.identity:
            return False
        raise UserError(f"{output.name} holds something else; choose a new or empty directory")
    if out.exists() and not out.is_dir():
        raise UserError(f"{output.name} is a file; choose a new or empty directory")
    folders, names = class_folders(exported), file_names(exported)
    partial = output.temporary("partial")
    if not (partial / RECORD).is_file() or read_json(partial / RECORD) != exported.identity:
        shutil.rmtree(partial, ignore_errors=True)
        write_json(partial / RECORD, exported.identity)
    for folder in folders.values():
        (partial / folder).mkdir(exist_ok=True)
    done = int((partial / DONE).read_text()) if (partial / DONE).is_file() else 0
    for chunk in exported.chunks(done):
        for number in chunk:
            path = partial / folders[int(exported.labels[number])] / f"{names[number]}.png"
            path.write_bytes(encode_png(exported.image(number)))
        write_atomically(partial / DONE, str(chunk.stop).encode())
    write_atomically(partial / CLASSES, _class_table(exported, folders))
    (partial / DONE).unlink()
    output.commit(partial)
    return True


def class_folders(exported: Exported) -> dict[int, str]:
    """The folder of each class that has images."""
    present = np.unique(exported.labels).tolist()
    folders = {number: safe_name(exported.class_names[number]) for number in present}
    twice = _first_shared(folders.values())
    if twice:
        one, other = (exported.class_names[n] for n in [n for n in present if folders[n].casefold() == twice][:2])
        raise UserError(
            f"the classes {one!r} and {other!r} would share the folder {twice!r} on some file systems: rename one"
        )
    return folders


def file_names(exported: Exported) -> list[str]:
    """Every sample's KEY; SHARD_KEY where keys repeat from shard to shard."""
    identities = [exported.shards.key(int(index)) for index in exported.indices]
    names = [safe_name(identity.partition("/")[2]) for identity in identities]
    if _first_shared(names):
        names = [safe_name(identity.replace("/", "_", 1)) for identity in identities]
    twice = _first_shared(names)
    if twice:
        one, other = [identities[place] for place, name in enumerate(names) if name.casefold() == twice][:2]
        raise UserError(f"the samples {one} and {other} would share the file name {twice + '.png'!r}")
    return names


def _first_shared(names: Iterable[str]) -> str | None:
    """The first name that comes a second time, upper and lower case being the same."""
    seen: set[str] = set()
    for name in map(str.casefold, names):
        if name in seen:
            return name
        seen.add(name)
    return None


def safe_name(name: str) -> str:
    """A name that Linux, macOS and Windows take, equal to ``name`` where they take that."""
    safe = FORBIDDEN.sub("_", unicodedata.normalize("NFC", name))
    safe = safe.encode()[:LONGEST].decode(errors="ignore").rstrip(" .")
    if not safe or safe.startswith((".", " ")) or RESERVED.fullmatch(safe):
        return f"_{safe}"
    return safe


def _class_table(exported: Exported, folders: dict[int, str]) -> bytes:
    """All classes, also those without images: ``label,class,folder,images``."""
    counts: Sequence[int] = np.bincount(exported.labels, minlength=len(exported.class_names)).tolist()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["label", "class", "folder", "images"])
    for number, name in enumerate(exported.class_names):
        table.writerow([number, name, folders.get(number, ""), counts[number]])
    return text.getvalue().encode()
