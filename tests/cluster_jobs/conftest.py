import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster_jobs.data import shards as shards_module
from cluster_jobs.data import stream
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores import remote, retries
from tests.cluster_jobs.slurm.slurm_cluster import SlurmCluster, missing
from tests.cluster_jobs.tiny import BLOCK, write_tiny_shards
from tests.cluster_jobs.toy_runs import KEYS, TOY
from tests.processes import Ended, fork


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished shards of 7, 3 and 11 grey pictures of 8 px; to be read only."""
    return write_tiny_shards(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_directory: Path) -> Shards:
    return Shards(tiny_directory)


@pytest.fixture
def copied(tiny_directory: Path, tmp_path: Path) -> Path:
    """The tiny shards, to be damaged."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "copied"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For shards on a server: a cache of this test's own, small blocks, short pauses."""
    for module in (remote, shards_module, stream):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("SHARD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def uninterrupted(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed; to be read only."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    ended = fork(run.with_name("log"), TOY, f"data={tiny_directory}", f"run.dir={run}", *KEYS)
    assert ended.code == 0, ended.output
    return run


@pytest.fixture
def train(tiny_directory: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Runs the toy in ``tmp_path/run`` unless told otherwise."""

    def call(*words: str, **env: str) -> Ended:
        usual = (f"data={tiny_directory}", f"run.dir={tmp_path / 'run'}", *KEYS)
        return fork(tmp_path / "log", TOY, *usual, *words, env=env)

    return call


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A real Slurm of two nodes. Skips where none can be started, unless REQUIRE_SLURM says that it must."""
    reason = missing()
    if reason and os.environ.get("REQUIRE_SLURM"):
        pytest.fail(f"REQUIRE_SLURM is set, but {reason}")
    if reason:
        pytest.skip(reason)
    with SlurmCluster() as cluster:
        yield cluster
