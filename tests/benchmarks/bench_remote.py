"""Images a second from shards over HTTP, with a cold and a warm cache, against local ones, in one run.

``python -m tests.benchmarks.bench_remote [IMAGES] [SIDE] [DELAY_MS]``: so many noisy JPEG pictures of so many pixels,
and a server on 127.0.0.1 that answers after so many milliseconds. Decoding is part of every number, as of every
training; the server's work is too, on the same cores.
"""

import io
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cluster_jobs.data.shard_writer import SHARD_SAMPLES, Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream
from tests.servers import Answer, Request, files, serving

BATCH = 64
ROUNDS = 3  # local and warm in turn, so that a busy machine is slow for both


def write(directory: Path, count: int, side: int) -> None:
    """Shards of smooth noise, about as large a picture as a photograph of that size."""
    random = np.random.default_rng(0)
    shards = -(-count // SHARD_SAMPLES)
    for number in range(shards):
        samples = []
        for index in range(number * SHARD_SAMPLES, min((number + 1) * SHARD_SAMPLES, count)):
            coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8))
            buffer = io.BytesIO()
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            samples.append(Sample(f"{index:08d}", buffer.getvalue(), "jpg"))
        write_shard(directory, number, samples)
    finish_index(directory, shards, classes=[], size=side, mode="RGB")


def rate(location: str, count: int) -> float:
    """Images a second of one epoch of the stream, from opening on."""
    begun = time.perf_counter()
    stream = Stream(Shards(location), seed=0, batch=BATCH, window="8")
    batches = count // BATCH
    for _ in itertools.islice(stream.batches(0), batches):
        pass
    return batches * BATCH / (time.perf_counter() - begun)


def main() -> None:
    count, side, delay = (int(word) for word in (*sys.argv[1:], *("6000", "128", "20")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SHARD_CACHE_DIR"] = f"{scratch}/cache"
        directory = Path(scratch) / "data"
        write(directory, count, side)
        answer = files(directory)

        def distant(request: Request) -> Answer:
            time.sleep(delay / 1000)
            return answer(request)

        total = sum(path.stat().st_size for path in directory.iterdir())
        print(f"{count} pictures of {side} px, {total / 2**20:.0f} MiB; each request takes {delay} ms")
        rate(str(directory), count)  # the files are in memory now
        with serving(distant) as server:
            cold = rate(server.url, count)
            pairs = [(rate(str(directory), count), rate(server.url, count)) for _ in range(ROUNDS)]
        local, warm = (max(column) for column in zip(*pairs, strict=True))
        print(f"local        {local:8.0f} images/s, the best of {ROUNDS}")
        print(f"warm cache   {warm:8.0f} images/s, the best of {ROUNDS}: {warm / local:.2f} of local")
        print(f"cold cache   {cold:8.0f} images/s: {cold / local:.2f} of local")


if __name__ == "__main__":
    main()
