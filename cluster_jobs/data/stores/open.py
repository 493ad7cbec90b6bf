"""Opens a shard directory by its location: a local path, or a URL."""

from pathlib import Path

from cluster_jobs.data.stores.base import Store, is_remote
from cluster_jobs.data.stores.local import LocalStore


def open_store(location: str) -> Store:
    """The store of a shard directory.

    Raises:
        UserError: a scheme that nothing here reads, a package that is missing, a server that cannot be reached.
    """
    if not is_remote(location):
        return LocalStore(Path(location))
    from cluster_jobs.data.stores.remote import RemoteStore  # with fsspec, which local paths do without

    return RemoteStore(location)
