"""Which places of a global batch are a rank's: its share, as a slice.

Every share is as large as the others (the run checks that the batch divides), so the mean over ranks of means over
shares is the mean over the batch. The two ways of sharing differ in what a part of every share is, taken together.
"""


def neighbouring(batch: int, rank: int, world: int) -> slice:
    """Places side by side: the even places of all (even) shares are the even places of the batch."""
    return slice(rank * batch // world, (rank + 1) * batch // world)


def interleaved(batch: int, rank: int, world: int) -> slice:
    """Every ``world``-th place: the last k / ``world`` places of all shares are the last k of the batch."""
    return slice(rank, batch, world)
