from pathlib import Path

import pytest

from tests.s3gan.toy_data import make_data, make_table


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with table.parquet beside them; to be read only."""
    directory = tmp_path_factory.mktemp("data")
    shards = make_data(directory / "train")
    make_table(directory / "table.parquet", shards)
    return directory
