from pathlib import Path

import pytest

from cluster_jobs.core.errors import UnreadableShard
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores.local import LocalStore
from cluster_jobs.data.stores.open import open_store
from tests.cluster_jobs.tiny import write_tiny_shards


def test_a_local_path_opens_no_remote_store(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)


def test_a_shard_deleted_while_it_is_in_use_is_one_clear_line(tmp_path: Path) -> None:
    shards = Shards(write_tiny_shards(tmp_path / "data"))
    shards.image(0)
    (tmp_path / "data" / "000001.tar").unlink()
    with pytest.raises(UnreadableShard, match=r"000001\.tar: cannot read the shard \(No such file or directory\)$"):
        shards.image(8)
