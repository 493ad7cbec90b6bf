import torch

from cluster_jobs.distributed.batch_split import contiguous
from selfsup.pretext.draws import Draws


def test_a_picture_has_the_same_draws_whichever_rank_reads_it():
    whole, *shares = (Draws(8, mine, (0, "views", 16)) for mine in (slice(None), contiguous(8, 0, 2), slice(4, 7)))
    for name, drawn in (
        ("uniform", lambda draws: draws.uniform("a", 2)),
        ("normal", lambda draws: draws.normal("a", 3, 4)),
        ("integers", lambda draws: draws.integers("a", 5)),
    ):
        assert torch.equal(torch.cat([drawn(share) for share in shares]), drawn(whole)[:7]), name


def test_draws_differ_by_name_and_by_batch():
    draws, later = Draws(4, slice(None), (0, "views", 0)), Draws(4, slice(None), (0, "views", 4))
    assert not torch.equal(draws.uniform("a"), draws.uniform("b"))
    assert not torch.equal(draws.uniform("a"), later.uniform("a"))
