"""The resources of a stage on a cluster, read from its pipeline's YAML and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cluster_jobs.core.errors import UserError

MEMORY = re.compile(r"\d+[KMGT]?")
TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")


@dataclass(frozen=True)
class Resources:
    """The resources of one stage's job; ignored on the local machine.

    On each node run as many processes as it has GPUs, or, without GPUs, the stage's ``processes``.
    """

    nodes: int = 1
    gpus: int = 0  # a node
    cpus: int = 0  # a node; 0 is one for each thread of each process
    memory: str = ""  # a node, for example 64G; empty is the site's default
    time: str = ""  # minutes, H:M:S or D-H:M:S; empty is the site's default
    array: int = 1  # jobs that divide the shards of a pool (s3gan.generate)


def read_resources(texts: Mapping[str, str], where: str) -> Resources:
    """Resources from their values as text.

    Raises:
        UserError: an unknown name, or a value of the wrong form.
    """
    least = {"nodes": 1, "gpus": 0, "cpus": 0, "array": 1}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name in least:
            if not text.isdecimal() or int(text) < least[name]:
                raise UserError(f"{where}: {name}={text!r}: expected a whole number of at least {least[name]}")
            values[name] = int(text)
        elif name in ("memory", "time"):
            pattern, example = (MEMORY, "64G") if name == "memory" else (TIME, "4:00:00 or 2-12:00:00")
            if text and not pattern.fullmatch(text):
                raise UserError(f"{where}: {name}={text!r}: expected for example {example}")
            values[name] = text
        else:
            known = ", ".join(field.name for field in fields(Resources))
            raise UserError(f"{where}: unknown resource {name!r}: expected one of {known}")
    resources = Resources(**values)
    if resources.array > 1 and resources.nodes > 1:
        raise UserError(
            f"{where}: array={resources.array} nodes={resources.nodes}: the jobs of an array have one node each"
        )
    return resources
