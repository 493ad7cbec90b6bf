"""What a pipeline is: a YAML file of stages, read into commands and checked as a graph.

    description: what the report says at its top
    processes: 1          # processes of a stage; more than one goes through accelerate launch
    threads: 1            # CPU threads of a process
    resources: {time: "4:00:00"}   # of a job on a cluster: nodes, gpus, cpus, memory, time, array (see resources.py)
    parallel: 2           # stages that run at once
    vars: {total_nimg: 60000}
    stages:
      gan:
        module: s3gan.train
        args: {data: "${root}/digits/train", run.dir: "${root}/gan", total_nimg: "${total_nimg}"}
        needs: [digits]   # and processes:, threads:, resources: where a stage differs from the pipeline

A stage's outputs are its ``out`` and ``run.dir`` arguments.
"""

import difflib
import graphlib
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster_jobs.errors import UserError
from cluster_jobs.resources import Resources, read_resources

BUILT_IN = Path(__file__).parent / "conf" / "pipeline"
OUTPUT_KEYS = ("out", "run.dir")
PIPELINE_KEYS = ("description", "processes", "threads", "resources", "parallel", "vars", "stages")
STAGE_KEYS = ("module", "args", "needs", "processes", "threads", "resources")


@dataclass(frozen=True)
class Stage:
    name: str
    module: str
    words: tuple[str, ...]  # key=value
    needs: tuple[str, ...]
    processes: int  # on one machine
    threads: int
    resources: Resources = Resources()

    @property
    def command(self) -> str:
        """The stage as one process would be started by hand; its exit record holds the same text."""
        return shlex.join(["python", "-m", self.module, *self.words])

    @property
    def arguments(self) -> dict[str, str]:
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}

    @property
    def outputs(self) -> list[Path]:
        return [Path(value) for name, value in self.arguments.items() if name in OUTPUT_KEYS]


def read_stage(stored: dict[str, Any]) -> Stage:
    """A stage from the plain values that `dataclasses.asdict` made of it."""
    resources = Resources(**stored["resources"])
    return Stage(
        **(stored | {"words": tuple(stored["words"]), "needs": tuple(stored["needs"]), "resources": resources})
    )


@dataclass(frozen=True)
class Pipeline:
    name: str
    description: str
    parallel: int
    stages: dict[str, Stage]  # in an order in which each follows what it needs

    def before(self, name: str) -> set[str]:
        """Every stage that must be done before this one."""
        needs = set(self.stages[name].needs)
        return needs.union(*(self.before(need) for need in needs))


def load(name: str, root: str, variables: str = "") -> Pipeline:
    """Reads a pipeline by its name or from a YAML file; ``variables`` ("a=1 b=2") replaces some of its ``vars``.

    Raises:
        UserError: no such pipeline, a YAML file that is no pipeline, or stages that are no graph.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        raise UserError(f"pipeline={name}: expected one of {names}, or the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    _check_keys(content, PIPELINE_KEYS, str(path))
    values = _values(content.get("vars") or {}, root, variables, str(path))
    specifications = content.get("stages")
    if not isinstance(specifications, dict) or not specifications:
        raise UserError(f"{path}: expected 'stages', a mapping of stage names")
    stages = [_stage(name, text, content, values, path) for name, text in specifications.items()]
    return Pipeline(
        name=path.stem,
        description=str(content.get("description") or "").strip(),
        parallel=_count(content, "parallel", 1, str(path)),
        stages=_graph(stages, path),
    )


def _values(defaults: Any, root: str, variables: str, where: str) -> dict[str, str]:
    """What ``${name}`` stands for: the root and the vars, each of which may use those before it."""
    if not isinstance(defaults, dict):
        raise UserError(f"{where}: vars: expected a mapping, found {defaults!r}")
    chosen = dict(defaults)
    for word in shlex.split(variables):
        name, equals, value = word.partition("=")
        if not equals or name not in defaults:
            raise UserError(f"vars: {word!r}: expected name=value with name {_nearest(name, defaults)}")
        chosen[name] = value
    values = {"root": root}
    for name, value in chosen.items():
        values[name] = _substitute(value, values, f"{where}: vars: {name}")
    return values


def _stage(name: Any, text: Any, pipeline: dict, values: dict[str, str], path: Path) -> Stage:
    where = f"{path}: stage {name!r}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(name)):
        raise UserError(f"{where}: expected a name of letters, digits, '_', '-' and '.'")
    _check_keys(text, STAGE_KEYS, where)
    module, arguments, needs = text.get("module"), text.get("args") or {}, text.get("needs") or []
    if not isinstance(module, str) or not re.fullmatch(r"\w+(\.\w+)*", module):
        raise UserError(f"{where}: module: expected a module such as s3gan.train, found {module!r}")
    if not isinstance(arguments, dict):
        raise UserError(f"{where}: args: expected a mapping of keys, found {arguments!r}")
    if not isinstance(needs, list):
        raise UserError(f"{where}: needs: expected a list of stages, found {needs!r}")
    words = [f"{key}={_substitute(value, values, f'{where}: {key}')}" for key, value in arguments.items()]
    asked = _mapping(pipeline, "resources", str(path)) | _mapping(text, "resources", where)
    return Stage(
        name=str(name),
        module=module,
        words=tuple(words),
        needs=tuple(str(need) for need in needs),
        processes=_count(pipeline | text, "processes", 1, where),
        threads=_count(pipeline | text, "threads", 0, where),
        resources=read_resources(
            {str(key): _substitute(value, values, f"{where}: {key}") for key, value in asked.items()}, where
        ),
    )


def _graph(stages: list[Stage], path: Path) -> dict[str, Stage]:
    """The stages in an order that honours their needs; checks the needs and who writes and reads what."""
    named = {stage.name: stage for stage in stages}
    for stage in stages:
        for need in stage.needs:
            if need not in named:
                raise UserError(f"{path}: stage {stage.name!r} needs {need!r}: {_nearest(need, named)}")
    try:
        graphlib.TopologicalSorter({stage.name: stage.needs for stage in stages}).prepare()
    except graphlib.CycleError as error:
        raise UserError(f"{path}: stages need each other in a circle: {' → '.join(error.args[1])}") from None
    pipeline = Pipeline(path.stem, "", 1, named)
    writers: dict[Path, str] = {}
    for stage in stages:
        for output in stage.outputs:
            if output in writers:
                raise UserError(f"{path}: stages {writers[output]!r} and {stage.name!r} both write {output}")
            writers[output] = stage.name
    for stage in stages:
        allowed = pipeline.before(stage.name) | {stage.name}
        for key, value in stage.arguments.items():
            for output, writer in writers.items():
                if writer not in allowed and Path(value).is_relative_to(output):
                    reads = f"reads {key}={value}, which {writer!r} writes, without needing it"
                    raise UserError(f"{path}: stage {stage.name!r} {reads}")
    ordered: dict[str, Stage] = {}
    while len(ordered) < len(stages):  # as near to the order of the file as the needs allow
        ready = (stage for stage in stages if stage.name not in ordered and ordered.keys() >= set(stage.needs))
        following = next(ready)
        ordered[following.name] = following
    return ordered


def _substitute(value: Any, values: dict[str, str], where: str) -> str:
    """A YAML scalar as a command-line value, with every ``${name}`` replaced once."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not isinstance(value, str | int | float):
        raise UserError(f"{where}: expected one value, found {value!r}")

    def replace(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(f"{where}: {match[0]}: {_nearest(match[1], values)}")
        return values[match[1]]

    return re.sub(r"\$\{(\w+)\}", replace, str(value))


def _check_keys(mapping: Any, allowed: Collection[str], where: str) -> None:
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: expected a mapping, found {mapping!r}")
    for key in mapping:
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}: {_nearest(str(key), allowed)}")


def _mapping(owner: dict, key: str, where: str) -> dict:
    found = owner.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {key}: expected a mapping, found {found!r}")
    return found


def _count(mapping: dict, key: str, smallest: int, where: str) -> int:
    value = mapping.get(key, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise UserError(f"{where}: {key}: expected a whole number of at least {smallest}, found {value!r}")
    return value


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names) or 'none'}"
