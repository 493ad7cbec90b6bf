"""A process that reads a stream and prints what it saw: ``data=LOCATION batches=N``."""

import hashlib
import itertools
import sys
from dataclasses import dataclass

from cluster_jobs.cli.config import MISSING, command, option
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stream import Stream

READER = "tests.cluster_jobs.data.toy_reader"


@dataclass
class ReaderConfig:
    """Reads a stream."""

    data: str = option(MISSING, "shard directory", path=True)
    batches: int = option(10, "global batches of four")


@command(ReaderConfig, conf="cluster_jobs.conf")
def main(config: ReaderConfig) -> None:
    shards = Shards(config.data)
    stream = Stream(shards, seed=1, batch=4, window="2")
    print(digest(stream, config.batches), flush=True)


def digest(stream: Stream, batches: int) -> str:
    """A digest of the keys, pixels and labels of a stream's first batches."""
    total, labels = hashlib.sha256(), stream.shards.hidden_labels()
    for batch in itertools.islice(stream.batches(0), batches):
        keys = [stream.shards.key(index) for index in batch.indices.tolist()]
        total.update(repr((keys, labels[batch.indices.numpy()].tolist())).encode() + batch.images.numpy().tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
