"""Strict reading of a pipeline's YAML: known keys only, values of the right type, every ``${name}`` filled in.

``where`` names the file, stage and key in an error message.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster_jobs.core.errors import UserError

SHOWN_NAMES = 20  # valid names listed in an error message


INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class Loader(yaml.SafeLoader):
    """Reads numbers as in YAML 1.2: 4:00:00 is text, the time of a job, and not 14,400."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (INTEGER, FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    INTEGER, re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$"), list("-+0123456789")
)
Loader.add_implicit_resolver(
    FLOAT,
    re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """What a YAML file says. Raises UserError where it is none."""
    try:
        return yaml.load(path.read_text(), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None


def check_keys(mapping: Any, allowed: Collection[str], where: str) -> None:
    """Raises UserError for what is no mapping, or has another key than the allowed ones."""
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: expected a mapping, found {mapping!r}")
    for key in mapping:
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}: {nearest(str(key), allowed)}")


def mapping_at(owner: Mapping[str, Any], key: str, where: str) -> dict[Any, Any]:
    """The mapping under a key, empty where there is none."""
    mapping = owner.get(key) or {}
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: {key}: expected a mapping, found {mapping!r}")
    return mapping


def whole_number_at(owner: Mapping[str, Any], key: str, smallest: int, where: str) -> int:
    """The whole number under a key, 1 where there is none."""
    value = owner.get(key, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise UserError(f"{where}: {key}: expected a whole number of at least {smallest}, found {value!r}")
    return value


def fill(value: Any, values: Mapping[str, str], where: str) -> str:
    """A YAML scalar as a command-line value, with every ``${name}`` replaced once."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not isinstance(value, str | int | float):
        raise UserError(f"{where}: expected one value, found {value!r}")

    def replace(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(f"{where}: {match[0]}: {nearest(match[1], values)}")
        return values[match[1]]

    return re.sub(r"\$\{(\w+)\}", replace, str(value))


def nearest(name: str, names: Collection[str]) -> str:
    """The end of an error message: the name that was probably meant, or the valid names."""
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    listed = [*list(names)[:SHOWN_NAMES], *(["…"] if len(names) > SHOWN_NAMES else [])]
    return f"expected one of {', '.join(listed) or 'none'}"
