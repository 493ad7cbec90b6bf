from pathlib import Path

import pytest

from tests.processes import fork
from tests.simgan.domains import train_words, write_domain


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 12, 5 and 13 simulated images; to be read only."""
    return write_domain(tmp_path_factory.mktemp("synthetic") / "train")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 9 and 11 images of the other domain; to be read only."""
    return write_domain(tmp_path_factory.mktemp("real") / "train", (9, 11), seed=1, grey=160)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, synthetic: Path, real: Path) -> Path:
    """The run directory of an uninterrupted training run."""
    run = tmp_path_factory.mktemp("trained") / "run"
    ended = fork(run.with_name("log"), "simgan.train", *train_words(synthetic, real, run))
    assert ended.code == 0, ended.output
    return run
