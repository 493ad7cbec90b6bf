"""How a global batch is split over ranks: the positions that each rank holds, as a slice.

All ranks hold equally many (the run checks that the batch divides), so the mean over ranks of their means is the mean
over the batch. The two splits differ in what the same part of every rank's share makes up together.
"""


def contiguous(batch: int, rank: int, world: int) -> slice:
    """One block a rank: the even positions of all (even) shares are the even positions of the batch."""
    return slice(rank * batch // world, (rank + 1) * batch // world)


def strided(batch: int, rank: int, world: int) -> slice:
    """Every ``world``-th position: the last k / ``world`` positions of all shares are the last k of the batch."""
    return slice(rank, batch, world)
