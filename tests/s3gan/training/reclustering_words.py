"""The words of a tiny run that finds new clusters often."""

from pathlib import Path

from tests.s3gan.toy_data import TINY

OFTEN = ["method=self_conditioned", "recluster_nimg=32", "recluster_count=40"]


def words(data: Path, run: Path, *keys: str) -> list[str]:
    return [f"data={data / 'train'}", "classes=3", *OFTEN, f"run.dir={run}", *TINY, *keys]
