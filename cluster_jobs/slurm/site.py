"""A site: what one cluster asks of its jobs (partition, account, modules, environment), read from a YAML file."""

import difflib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.resources import MEMORY, TIME
from cluster_jobs.pipelines.strict_yaml import read_yaml

BUILT_IN = Path(__file__).parents[1] / "conf" / "site"
PLAIN = re.compile(r"[\w.,:&|*()\[\]@+/-]*")  # what needs no quotes in a batch script's directives


@dataclass(frozen=True)
class Site:
    """The settings of a site; ``conf/site/default.yaml`` explains each."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = ""
    memory: str = ""
    options: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    python: str = ""
    grace_seconds: int = 120
    restarts: int = 100
    rendezvous_seconds: int = 300


def read_site(name: str) -> Site:
    """A site by its name, or from a YAML file.

    Raises:
        UserError: no such site, an unknown setting, or a value of another type.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        raise UserError(f"site={name}: expected one of {names}, or the path of a YAML file")
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of settings, found {content!r}")
    kinds = get_type_hints(Site)
    for setting in content:
        if setting not in kinds:
            near = difflib.get_close_matches(str(setting), kinds, n=1)
            known = ", ".join(field.name for field in fields(Site))
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {known}"
            raise UserError(f"{path}: unknown setting {setting!r}: {hint}")
    return Site(**{setting: _value(setting, value, kinds[setting], path) for setting, value in content.items()})


def _value(setting: str, value: Any, kind: Any, path: Path) -> Any:
    where = f"{path}: {setting}: {value!r}"
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f"{where}: expected a whole number of at least 0")
        return value
    if kind is str:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UserError(f"{where}: expected text")
        text = str(value)
        patterns = {"time": TIME, "memory": MEMORY, "python": re.compile(r"[^\n]*")}
        if text and not patterns.get(setting, PLAIN).fullmatch(text):
            raise UserError(f"{where}: expected a name, a number or a time as sbatch takes it")
        return text
    if not isinstance(value, list) or not all(isinstance(item, str) and "\n" not in item for item in value):
        raise UserError(f"{where}: expected a list of single lines of text")
    return tuple(value)
