"""How a global batch is split over ranks: the positions that each rank holds, as a slice.

All shares have the same size (the run checks that the batch divides), so the mean over ranks of their means is the mean
over the batch. The splits are contiguous or strided. Users that pick images by their position in a share need the one
with which this picks the same positions of the global batch on any number of ranks.
"""


def contiguous(batch: int, rank: int, world: int) -> slice:
    """One contiguous block per rank.

    Shares joined in rank order give the batch in its order. With shares of even size, the even positions of all shares
    are the even positions of the batch: SimGAN's D sees the refined images at these, and images of its history at the
    others.
    """
    return slice(rank * batch // world, (rank + 1) * batch // world)


def strided(batch: int, rank: int, world: int) -> slice:
    """Every ``world``-th position, beginning with the rank's own number.

    The last k / ``world`` positions of all shares are the last k positions of the batch: a GAN's rotation head also
    shows these images turned.
    """
    return slice(rank, batch, world)
