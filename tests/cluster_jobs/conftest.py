from pathlib import Path

import pytest

from cluster_jobs.shards import Shards
from tests.cluster_jobs.tiny import write_tiny_shards


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished shards of 7, 3 and 11 grey pictures of 8 px; to be read only."""
    return write_tiny_shards(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_directory: Path) -> Shards:
    return Shards(tiny_directory)
