"""The training stream: a pure function ``(seed, epoch, position) → sample``, whatever the number of ranks and workers.

The order permutes blocks (a few megabytes of one shard each), then the samples within a window of blocks, so that
readers on shared file systems and object stores make large reads. Permutations are keyed, so no list of samples exists
and a seek to any position takes constant time. Every epoch holds every sample exactly once.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cluster_jobs.core.errors import DamagedSample, UserError
from cluster_jobs.core.seeds import derive_seed
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.base import BLOCK_BYTES

MOST_BLOCKS = 2 << 20  # in 8 TiB; larger data has larger blocks, because each costs every reader 50 bytes of memory
CACHE_BYTES = 512 << 20  # decoded pictures kept by a reader in the training process; larger data is decoded every epoch
FEISTEL_ROUNDS = 6
SCAN_AHEAD_BYTES = 8 * BLOCK_BYTES
REPLACEMENT_TRIES = 100


def _scramble(values: np.ndarray, key: int) -> np.ndarray:
    """A keyed 64-bit hash of uint64 values (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = values + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def permute(values: np.ndarray, size: int, key: int) -> np.ndarray:
    """A keyed permutation of ``range(size)`` evaluated at ``values`` (int64), without holding the permutation.

    A Feistel network permutes the smallest even number of bits that covers ``size``; values that leave the range walk
    on until they return (cycle walking, Black & Rogaway 2002), at most four steps on average.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [derive_seed(key, "feistel", turn) for turn in range(FEISTEL_ROUNDS)]
    result = values.astype(np.uint64)
    pending = np.arange(len(result))
    with np.errstate(over="ignore"):
        while len(pending):
            left, right = result[pending] >> shift, result[pending] & mask
            for turn_key in keys:
                left, right = right, left ^ (_scramble(right, turn_key) & mask)
            result[pending] = (left << shift) | right
            pending = pending[result[pending] >= size]
    return result.astype(np.int64)


@dataclass(frozen=True)
class _Epoch:
    """One epoch's arrangement: permuted blocks and where each begins in the epoch (int64, one longer than the
    blocks).
    """

    blocks: np.ndarray
    begins: np.ndarray


class Order:
    """The sample at each position of the endless stream.

    Args:
        counts: samples in each shard, int64.
        sizes: bytes of each shard, int64; with ``counts`` they decide how many samples make a block.
        window: blocks that are shuffled together, or ``"all"``.
    """

    def __init__(self, counts: np.ndarray, sizes: np.ndarray, *, seed: int, window: str = "64") -> None:
        self.count = int(counts.sum())
        self.seed = seed
        block_bytes = max(BLOCK_BYTES, int(sizes.sum()) // MOST_BLOCKS)
        lengths = np.clip(block_bytes * counts // np.maximum(sizes, 1), 1, np.maximum(counts, 1))
        blocks = -(-counts // lengths)
        shard = np.repeat(np.arange(len(counts)), blocks)
        within = np.arange(int(blocks.sum())) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        self._starts = (np.cumsum(counts) - counts)[shard] + within * lengths[shard]
        self._lengths = np.minimum(lengths[shard], counts[shard] - within * lengths[shard])
        self.window = len(self._starts) if window == "all" else int(window)
        self._arranged: dict[int, _Epoch] = {}

    def _epoch(self, epoch: int) -> _Epoch:
        """The epoch's arrangement; the last two are kept, because a batch may span two epochs."""
        if epoch not in self._arranged:
            self._arranged = {kept: self._arranged[kept] for kept in list(self._arranged)[-1:]}
            self._arranged[epoch] = self._arrange(epoch)
        return self._arranged[epoch]

    def _arrange(self, epoch: int) -> _Epoch:
        with np.errstate(over="ignore"):
            ranks = _scramble(np.arange(len(self._starts), dtype=np.uint64), derive_seed(self.seed, "blocks", epoch))
        blocks = np.argsort(ranks, kind="stable")
        return _Epoch(blocks, np.concatenate([[0], np.cumsum(self._lengths[blocks])]))

    def ahead(self, start: int, stop: int) -> np.ndarray:
        """The samples (int64) of the blocks to fetch while positions ``start`` to ``stop`` are read.

        They are those of the next window, a share of it that is as large as what is read of this one; none where a
        window holds the whole epoch, whose every block is needed all the time.
        """
        if self.window >= len(self._starts):
            return np.empty(0, np.int64)
        distance = self.window * self.count // len(self._starts)
        samples = [np.empty(0, np.int64)]
        for epoch in range((start + distance) // self.count, (stop + distance - 1) // self.count + 1):
            arrangement = self._epoch(epoch)
            limits = np.array([start, stop]) + distance - epoch * self.count
            first, last = np.searchsorted(arrangement.begins[:-1], limits)
            samples += [
                np.arange(self._starts[block], self._starts[block] + self._lengths[block])
                for block in arrangement.blocks[first:last]
            ]
        return np.concatenate(samples)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The sample index at each position (int64); positions count on over the epochs."""
        result = np.empty(len(positions), np.int64)
        epochs = positions // self.count
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            result[chosen] = self._within(int(epoch), positions[chosen] - epoch * self.count)
        return result

    def _within(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        arrangement = self._epoch(epoch)
        begins = arrangement.begins
        windows = (np.searchsorted(begins, positions, side="right") - 1) // self.window
        shuffled = np.empty_like(positions)
        for window in np.unique(windows):
            chosen = windows == window
            begin = begins[window * self.window]
            end = begins[min((window + 1) * self.window, len(begins) - 1)]
            key = derive_seed(self.seed, "window", epoch, int(window))
            shuffled[chosen] = begin + permute(positions[chosen] - begin, int(end - begin), key)
        blocks = np.searchsorted(begins, shuffled, side="right") - 1
        return self._starts[arrangement.blocks[blocks]] + shuffled - begins[blocks]


@dataclass
class Batch:
    """This rank's part of one global batch.

    ``images`` uint8 (n, C, H, W); ``indices`` int64 (n,), the samples' indices, by which labels are looked up;
    ``position`` the stream position of the *global* batch's first sample, which keys the batch's randomness.
    """

    images: torch.Tensor
    indices: torch.Tensor
    position: int

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by the data loader's pinning thread)."""
        return Batch(self.images.pin_memory(), self.indices.pin_memory(), self.position)


class Reader:
    """Decodes samples by index; a damaged one is fatal, or deterministically replaced by the next readable one."""

    def __init__(
        self,
        shards: Shards,
        damaged: str = "fatal",
        subset: np.ndarray | None = None,
        *,
        cache: bool = True,
    ) -> None:
        self.shards, self.replace = shards, damaged == "replace"
        self.subset = None if subset is None else np.sort(subset)
        shape = (len(shards), *shards.shape)
        keep = cache and int(np.prod(shape)) <= CACHE_BYTES
        self._cache = np.empty(shape if keep else (0,), np.uint8)
        self._cached = np.zeros(len(shards) if keep else 0, bool)

    def read(self, indices: np.ndarray, position: int) -> Batch:
        """The samples at ``indices`` (int64) as a batch at ``position``."""
        self.shards.prefetch(indices)  # all at once, as one after the other would wait for each
        used = indices.copy()
        images = np.empty((len(indices), *self.shards.shape), np.uint8)
        for i, index in enumerate(indices):
            images[i], used[i] = self._image(int(index))
        return Batch(torch.from_numpy(images), torch.from_numpy(used), position)

    def _image(self, index: int) -> tuple[np.ndarray, int]:
        if len(self._cached) and self._cached[index]:
            return self._cache[index], index
        for offset in range(REPLACEMENT_TRIES):
            candidate = self._after(index, offset)
            try:
                image = self.shards.image(candidate)
            except DamagedSample as error:
                if not self.replace:
                    raise
                print(f"warning: {error}; replaced by the next sample", file=sys.stderr, flush=True)
                continue
            if len(self._cached) and not offset:
                self._cache[index], self._cached[index] = image, True
            return image, candidate
        raise DamagedSample(f"{self.shards.key(index)} and the {REPLACEMENT_TRIES - 1} samples after it cannot be read")

    def _after(self, index: int, offset: int) -> int:
        """The sample ``offset`` positions after ``index``, among those of this reader's subset."""
        if self.subset is None:
            return (index + offset) % len(self.shards)
        return int(self.subset[(np.searchsorted(self.subset, index) + offset) % len(self.subset)])


class _GlobalBatches(Dataset):
    """Global batches by their start position, as the reader processes of a DataLoader need them."""

    def __init__(self, stream: "Stream", reader: Reader) -> None:
        self.stream, self.reader = stream, reader

    def __getitem__(self, start: int) -> Batch | UserError:
        """The batch, or why there is none: as an exception of a reader process it would arrive as a traceback."""
        try:
            batch = self.reader.read(self.stream.indices(start), start)
            self.stream.prefetch(start)
        except UserError as error:
            return error
        return batch


class Stream:
    """The endless stream of global batches, of which this rank reads its share.

    Args:
        batch: images per global batch.
        mine: the positions in every global batch that this rank reads (`cluster_jobs.distributed.batch_split`); all by
            default.
        subset: the sample indices that the stream is made of, ascending int64; all by default.

    Raises:
        UserError: there is nothing to read.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        seed: int,
        batch: int,
        mine: slice = slice(None),
        window: str = "64",
        workers: int = 0,
        damaged: str = "fatal",
        subset: np.ndarray | None = None,
    ) -> None:
        if subset is not None and not len(subset):
            raise UserError(f"no samples to read in {shards.directory}")
        counts, sizes = shards.shard_counts, shards.shard_bytes
        if subset is not None:
            counts, sizes = np.array([len(subset)]), sizes.sum(keepdims=True) * len(subset) // len(shards)
        self.shards, self.batch, self.mine = shards, batch, mine
        self.workers, self.subset = workers, subset
        self.order = Order(counts, sizes, seed=seed, window=window)
        self._reader = Reader(shards, damaged, subset, cache=workers == 0)

    def indices(self, start: int) -> np.ndarray:
        """This rank's sample indices of the global batch that begins at position ``start``."""
        indices = self.order.indices(np.arange(start, start + self.batch)[self.mine])
        return indices if self.subset is None else np.asarray(self.subset)[indices]

    def prefetch(self, start: int) -> None:
        """Begins to fetch what the stream needs one window after the global batch at position ``start``."""
        if self.shards.store.remote:
            ahead = self.order.ahead(start, start + self.batch)
            self.shards.prefetch(ahead if self.subset is None else np.asarray(self.subset)[ahead])

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches from position ``start`` (images seen) on, without end."""
        starts = itertools.count(start, self.batch)
        batches = _GlobalBatches(self, self._reader)
        read: Iterable[Batch | UserError] = (batches[start] for start in starts)
        if self.workers > 0:
            read = DataLoader(
                batches,
                sampler=starts,  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=4,
                pin_memory=torch.cuda.is_available(),
            )
        for batch in read:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def scan(
    shards: Shards,
    batch: int,
    rank: int = 0,
    world: int = 1,
    indices: np.ndarray | None = None,
    damaged: str = "fatal",
) -> Iterator[Batch]:
    """Every sample once, in index order: the finite stream of evaluations, the same number of batches on every rank.

    ``batch`` is global; this rank's slice may be short or empty at the end (it is yielded with n = 0, so that
    collectives in the loop match). ``Batch.position`` is that of the global batch's first sample in the scan.
    """
    reader = Reader(shards, damaged, indices, cache=False)
    chosen = np.arange(len(shards)) if indices is None else np.asarray(indices)
    share = -(-batch // world)
    step = share * world
    ahead = -(-SCAN_AHEAD_BYTES * len(shards) // int(shards.shard_bytes.sum()) // step) * step  # in samples
    for start in range(0, len(chosen), step):
        first = start + rank * share
        yield reader.read(chosen[first : first + share], start)
        shards.prefetch(chosen[first + ahead : first + ahead + share])
