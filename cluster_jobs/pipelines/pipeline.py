"""Pipelines: a YAML file of stages, read into commands and checked as a graph.

    description: what the report says at its top
    processes: 1          # processes of a stage; more than one goes through accelerate launch
    threads: 1            # CPU threads of a process
    resources: {time: "4:00:00"}   # of a job on a cluster: nodes, gpus, cpus, memory, time, array (see resources.py)
    parallel: 2           # stages that run at once
    vars: {total_nimg: 60000, seeds: 0 1 2}
    stages:
      gan:
        each: {seed: "${seeds}"}   # a copy for each value: gan_0, gan_1, gan_2; see repeats.py for lists and mappings
        module: s3gan.train
        args: {data: "${root}/data/train", run.dir: "${root}/gan/${seed}", seed: "${seed}", total_nimg: "${total_nimg}"}
        needs: [data]     # and processes:, threads:, resources: where a stage differs from the pipeline
      scores:
        each: {seed: "${seeds}"}
        needs: [gan]      # scores_0 needs gan_0, the copy with the same seed; a stage without each would need all three

A stage's outputs are its ``out`` and ``run.dir`` arguments. ``args``, ``needs`` and ``resources`` may use ``${root}``,
the vars, and the values of the stage's own ``each``.
"""

import fnmatch
import graphlib
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.repeats import Copy, copies, resolve
from cluster_jobs.pipelines.resources import Resources, read_resources
from cluster_jobs.pipelines.strict_yaml import check_keys, fill, mapping_at, nearest, read_yaml, whole_number_at

BUILT_IN = Path(__file__).parents[1] / "conf" / "pipeline"
OUTPUT_KEYS = ("out", "run.dir")
PIPELINE_KEYS = ("description", "processes", "threads", "resources", "parallel", "vars", "stages")
STAGE_KEYS = ("each", "module", "args", "needs", "processes", "threads", "resources")


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
        """The command of the stage in one process; its exit record holds the same text."""
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
        needed: set[str] = set()
        waiting = list(self.stages[name].needs)
        while waiting:
            need = waiting.pop()
            if need not in needed:
                needed.add(need)
                waiting += self.stages[need].needs
        return needed

    def part(self, patterns: str) -> "Pipeline":
        """The stages that match one of the patterns ("gan_* scores_?"), and all that those need; "" means every stage.

        Raises:
            UserError: a pattern that no stage matches.
        """
        chosen: set[str] = set()
        for pattern in patterns.split():
            matching = fnmatch.filter(self.stages, pattern)
            if not matching:
                raise UserError(f"only: no stage of {self.name} matches {pattern!r}: {nearest(pattern, self.stages)}")
            chosen = chosen.union(matching, *(self.before(name) for name in matching))
        kept = {name: stage for name, stage in self.stages.items() if name in chosen}
        return replace(self, stages=kept) if patterns.split() else self


def load(name: str, root: str, variables: str = "") -> Pipeline:
    """Reads a pipeline by its name or from a YAML file; ``variables`` ("a=1 b=2") replaces some of its ``vars``.

    Raises:
        UserError: no such pipeline, a YAML file that is no pipeline, or stages whose needs are no acyclic graph.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        raise UserError(f"pipeline={name}: expected one of {names}, or the path of a YAML file")
    content = read_yaml(path)
    check_keys(content, PIPELINE_KEYS, str(path))
    values = _values(content.get("vars") or {}, root, variables, str(path))
    return Pipeline(
        name=path.stem,
        description=str(content.get("description") or "").strip(),
        parallel=whole_number_at(content, "parallel", 1, str(path)),
        stages=_graph(_stages(content, values, path), path),
    )


def _values(defaults: Any, root: str, variables: str, where: str) -> dict[str, str]:
    """What ``${name}`` stands for: the root and the vars, each of which may use those before it."""
    if not isinstance(defaults, dict):
        raise UserError(f"{where}: vars: expected a mapping, found {defaults!r}")
    chosen = dict(defaults)
    try:
        words = shlex.split(variables)
    except ValueError as error:
        raise UserError(f"vars={variables!r}: {error}; expected name=value words, quoted as a shell wants it") from None
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in defaults:
            raise UserError(f"vars: {word!r}: expected name=value with name {nearest(name, defaults)}")
        chosen[name] = value
    values = {"root": root}
    for name, value in chosen.items():
        values[name] = fill(value, values, f"{where}: vars: {name}")
    return values


def _stages(pipeline: dict[str, Any], values: dict[str, str], path: Path) -> list[Stage]:
    """Every copy of every stage, before the graph is checked."""
    specifications = pipeline.get("stages")
    if not isinstance(specifications, dict) or not specifications:
        raise UserError(f"{path}: expected 'stages', a mapping of stage names")
    for name, text in specifications.items():
        check_keys(text, STAGE_KEYS, f"{path}: stage {name!r}")
    every_copy = copies({str(name): text for name, text in specifications.items()}, values, str(path))
    every: dict[str, list[Copy]] = {}
    for copy in every_copy:
        every.setdefault(copy.stage, []).append(copy)
    return [_stage(copy, every, pipeline, path) for copy in every_copy]


def _stage(copy: Copy, every: dict[str, list[Copy]], pipeline: dict[str, Any], path: Path) -> Stage:
    where, text, values = f"{path}: stage {copy.name!r}", copy.text, copy.values
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", copy.name):
        raise UserError(f"{where}: expected a name of letters, digits, '_', '-' and '.'")
    module, needs = text.get("module"), text.get("needs") or []
    if not isinstance(module, str) or not re.fullmatch(r"\w+(\.\w+)*", module):
        raise UserError(f"{where}: module: expected a module such as s3gan.train, found {module!r}")
    if not isinstance(needs, list):
        raise UserError(f"{where}: needs: expected a list of stages, found {needs!r}")
    named = [fill(need, values, f"{where}: needs") for need in needs]
    arguments = mapping_at(text, "args", where)
    asked = mapping_at(pipeline, "resources", str(path)) | mapping_at(text, "resources", where)
    return Stage(
        name=copy.name,
        module=module,
        words=tuple(f"{key}={fill(value, values, f'{where}: {key}')}" for key, value in arguments.items()),
        needs=tuple(dict.fromkeys(stage for need in named for stage in resolve(need, copy, every, where))),
        processes=whole_number_at(pipeline | text, "processes", 1, where),
        threads=whole_number_at(pipeline | text, "threads", 0, where),
        resources=read_resources(
            {str(key): fill(value, values, f"{where}: {key}") for key, value in asked.items()}, where
        ),
    )


def _graph(stages: list[Stage], path: Path) -> dict[str, Stage]:
    """The stages in topological order; checks their names, their needs, and that each path has one writer."""
    named = {stage.name: stage for stage in stages}
    for stage in stages:
        if named[stage.name] is not stage:
            raise UserError(f"{path}: two stages are called {stage.name!r}: expected another name for one of them")
        for need in stage.needs:
            if need not in named:
                raise UserError(f"{path}: stage {stage.name!r} needs {need!r}: {nearest(need, named)}")
    try:
        graphlib.TopologicalSorter({stage.name: stage.needs for stage in stages}).prepare()
    except graphlib.CycleError as error:
        raise UserError(f"{path}: stages need each other in a circle: {' → '.join(error.args[1])}") from None
    _check_paths(Pipeline(path.stem, "", 1, named), path)
    ordered: dict[str, Stage] = {}
    while len(ordered) < len(stages):  # as near to the order of the file as the needs allow
        ready = (stage for stage in stages if stage.name not in ordered and ordered.keys() >= set(stage.needs))
        following = next(ready)
        ordered[following.name] = following
    return ordered


def _check_paths(pipeline: Pipeline, path: Path) -> None:
    """Checks that every path has one writer, and that each stage which reads it needs that writer."""
    writers: dict[Path, str] = {}
    for stage in pipeline.stages.values():
        for output in stage.outputs:
            if output in writers:
                raise UserError(f"{path}: stages {writers[output]!r} and {stage.name!r} both write {output}")
            writers[output] = stage.name
    for stage in pipeline.stages.values():
        allowed = pipeline.before(stage.name) | {stage.name}
        for key, value in stage.arguments.items():
            for directory in (Path(value), *Path(value).parents):
                writer = writers.get(directory)
                if writer is not None and writer not in allowed:
                    reads = f"reads {key}={value}, which {writer!r} writes, without needing it"
                    raise UserError(f"{path}: stage {stage.name!r} {reads}")
