"""How a global batch is split over ranks: the positions that each rank holds, as a slice.

All shares have the same size (the run checks that the batch divides), so the mean over ranks of their means is the mean
over the batch. The two splits differ in which positions of the batch the same positions of all shares are.
"""


def contiguous(batch: int, rank: int, world: int) -> slice:
    """One block per rank. With shares of even size, their even positions are the even positions of the batch."""
    return slice(rank * batch // world, (rank + 1) * batch // world)


def strided(batch: int, rank: int, world: int) -> slice:
    """Every ``world``-th position. The last k / ``world`` positions of all shares are the last k of the batch."""
    return slice(rank, batch, world)
