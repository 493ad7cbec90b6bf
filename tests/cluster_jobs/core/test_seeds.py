import subprocess
import sys

import numpy as np
import torch

from cluster_jobs.core.seeds import derive_seed, generator, is_validation, key_hash


def test_the_hashes_are_the_same_in_every_version_and_process() -> None:
    # pinned: a change here would change every budget, split and stream that users have
    assert derive_seed(0, "blocks", 0) == 1838204989116378741
    assert key_hash(0, "000003/00012345") == 7446982680631264527
    command = "from cluster_jobs.core.seeds import derive_seed; print(derive_seed('ä', 1))"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    assert int(other.stdout) == derive_seed("ä", 1)


def test_mix_tells_parts_types_and_borders_apart() -> None:
    cases: list[tuple[int | str, ...]] = [(), (1,), ("1",), (1, 2), (12,), ("1", 2), (1, "2"), ("12",)]
    cases += [("a", "b"), ("ab",), ("b", "a")]
    assert len({derive_seed(*parts) for parts in cases}) == len(cases)
    assert all(0 <= derive_seed(number) < 2**63 for number in range(1000))


def test_a_generator_depends_on_its_parts_alone() -> None:
    first = torch.randn(4, generator=generator("cpu", 1, "z", 7))
    torch.manual_seed(99)
    assert torch.equal(first, torch.randn(4, generator=generator("cpu", 1, "z", 7)))
    assert not torch.equal(first, torch.randn(4, generator=generator("cpu", 1, "z", 8)))


def test_the_validation_part_is_one_key_in_twenty() -> None:
    keys = [f"{i // 1000:06d}/{i:08d}" for i in range(20_000)]
    share = np.mean([is_validation(key) for key in keys])
    assert abs(share - 0.05) < 4 * np.sqrt(0.05 * 0.95 / len(keys))  # four standard deviations
