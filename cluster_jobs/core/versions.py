"""The versions of installed packages."""

import importlib.metadata

DISTRIBUTION = "label-efficient-gan"  # this project, as pip knows it


def installed(name: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
