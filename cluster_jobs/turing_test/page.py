"""The page of a visual Turing test (SimGAN, section 3.2) and its key, which alone says which images are real."""

import base64
import hashlib
import json
import random
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shards import Shards
from cluster_jobs.reporting.html import STYLE

KINDS = ("real", "fake")
SHOWN_PIXELS = 320  # about the length of the longer side on the screen, unless the caller gives a scale


@dataclass(frozen=True)
class TuringTest:
    """The images of a test by id, in random order, with what each is."""

    pictures: dict[str, np.ndarray]  # by id, uint8 (C, H, W)
    truth: dict[str, str]  # by id: "real" or "fake"
    samples: dict[str, str]  # by id: SHARD/KEY
    examples: dict[str, list[np.ndarray]]  # by kind; none of them is asked for

    @property
    def fingerprint(self) -> str:
        """A digest of pictures and truths, by which answers are matched with the key of the same test."""
        digest = hashlib.sha256(json.dumps([self.truth, self.samples]).encode())
        for picture in self.pictures.values():
            digest.update(np.ascontiguousarray(picture).tobytes())
        return digest.hexdigest()[:16]


def draw(real: Shards, fake: Shards, count: int, examples: int, seed: int) -> TuringTest:
    """``count`` pictures of each kind to judge and ``examples`` to learn from, all different, keyed by the seed."""
    rows, examples_of = [], {}
    for kind, shards in zip(KINDS, (real, fake), strict=True):
        chosen = random.Random(derive_seed("turing", seed, kind)).sample(range(len(shards)), count + examples)
        examples_of[kind] = [shards.image(index) for index in chosen[count:]]
        rows += [(kind, shards.key(index), shards.image(index)) for index in chosen[:count]]
    # somebody with the page and this code, but without the images, cannot reproduce the order
    draws = random.Random(derive_seed("turing", seed, "order", real.fingerprint, fake.fingerprint))
    draws.shuffle(rows)
    ids = [f"{value:08x}" for value in draws.sample(range(1 << 32), len(rows))]
    table = dict(zip(ids, rows, strict=True))
    return TuringTest(
        {id: picture for id, (_, _, picture) in table.items()},
        {id: kind for id, (kind, _, _) in table.items()},
        {id: sample for id, (_, sample, _) in table.items()},
        examples_of,
    )


def page(test: TuringTest, title: str, scale: int) -> str:
    """One self-contained HTML file. ``scale`` 0 chooses how far pictures are enlarged."""
    height, width = next(iter(test.pictures.values())).shape[1:]
    content = {
        "fingerprint": test.fingerprint,
        "scale": scale or max(1, SHOWN_PIXELS // max(height, width)),
        "images": [{"id": id, "source": _inline(picture)} for id, picture in test.pictures.items()],
        "examples": {kind: [_inline(picture) for picture in pictures] for kind, pictures in test.examples.items()},
    }
    text = resources.files("cluster_jobs.conf").joinpath("turing.html").read_text()
    parts = {
        "style": STYLE,
        "title": escape(title),
        "count": str(len(test.pictures)),
        "test": json.dumps(content).replace("<", "\\u003c"),
    }
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    return text


def key_of(test: TuringTest, real: Shards, fake: Shards, seed: int) -> dict[str, Any]:
    """``key.json``: the truths, which the judges must not see, and the sources of the pictures."""
    return {
        "format": 1,
        "test": test.fingerprint,
        "seed": seed,
        "fingerprints": {"real": real.fingerprint, "fake": fake.fingerprint},
        "truth": test.truth,
        "samples": test.samples,
    }


def _inline(picture: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(picture)).decode()}"
