"""Stages that are repeated over values: a stage's ``each`` makes a copy of the stage for each value.

each: {seed: [0, 1, 2]}              # gan → gan_0, gan_1, gan_2, in each of which ${seed} is its value
each: {seed: "${seeds}"}             # the values of a var, set apart by spaces: vars='seeds="0 1 2 3"' adds one
each:
  row:                               # a mapping names the copies and gives each further values of its own
    s3gan_10: {method: s3gan, labels: inferred_10}
    supervised: {method: supervised, labels: truth}
  seed: [0, 1]                       # gan_s3gan_10_0, gan_s3gan_10_1, gan_supervised_0, …
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.pipelines.strict_yaml import fill, mapping_at

Values = dict[str, str]


@dataclass(frozen=True)
class Copy:
    """One copy of a stage. A stage without ``each`` has one, of its own name."""

    stage: str  # its name in the file
    text: dict[str, Any]  # its content in the file
    choice: Values  # the value of every name in its ``each``
    values: Values  # all that ``${name}`` stands for

    @property
    def name(self) -> str:
        return "_".join([self.stage, *self.choice.values()])

    def agrees(self, other: "Copy") -> bool:
        """Whether both have the same value wherever both are repeated over the same name."""
        return all(self.choice[name] == other.choice[name] for name in self.choice.keys() & other.choice.keys())


def copies(stages: Mapping[str, dict[str, Any]], values: Values, where: str) -> list[Copy]:
    """All copies, in the order of the file. Neighbours with the same ``each`` alternate, so that stages that belong
    together run together: gan_0, scores_0, gan_1, scores_1.

    Raises:
        UserError: an ``each`` without values, or one that defines a name twice.
    """
    result: list[Copy] = []
    for _, neighbours in itertools.groupby(stages.items(), key=lambda item: item[1].get("each")):
        columns = [
            [Copy(stage, text, *chosen) for chosen in _choices(text, values, f"{where}: stage {stage!r}")]
            for stage, text in neighbours
        ]
        result += itertools.chain.from_iterable(zip(*columns, strict=True))
    return result


def resolve(need: str, copy: Copy, every: Mapping[str, Sequence[Copy]], where: str) -> list[str]:
    """The stages that one word of a copy's ``needs`` means.

    The name of a stage of the file means those of its copies that agree with this one: the matching copy, where both
    have the same ``each``; all copies, where this one has none. Any other word is the name of one copy.

    Args:
        every: the copies of each stage of the file.
    """
    if need not in every:
        return [need]
    agreeing = [other.name for other in every[need] if other.agrees(copy)]
    if not agreeing:
        mine = ", ".join(f"{name}={value}" for name, value in copy.choice.items())
        raise UserError(f"{where}: needs {need!r}, which has no copy with {mine}")
    return agreeing


def _choices(text: dict[str, Any], values: Values, where: str) -> list[tuple[Values, Values]]:
    """(choice, values) of every copy."""
    chosen: list[tuple[Values, Values]] = [({}, values)]
    for name, options in mapping_at(text, "each", where).items():
        here = f"{where}: each: {name}"
        chosen = [
            (choice | {str(name): value}, _with(_with(known, {str(name): value}, here), more, here))
            for choice, known in chosen
            for value, more in _options(options, known, here)
        ]
    return chosen


def _options(options: Any, values: Values, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of one name, each with the further names that come with it."""
    if isinstance(options, dict):
        named = [(fill(key, values, where), more or {}) for key, more in options.items()]
    elif isinstance(options, list):
        named = [(fill(item, values, where), {}) for item in options]
    else:
        named = [(word, {}) for word in fill(options, values, where).split()]
    keys = [key for key, _ in named]
    if not keys or len(set(keys)) < len(keys):
        raise UserError(f"{where}: expected one or more different values, found {' '.join(keys) or 'none'}")
    for key, more in named:
        if not isinstance(more, dict):
            raise UserError(f"{where}: {key}: expected a mapping of further names, found {more!r}")
        yield key, more


def _with(values: Values, more: dict[str, Any], where: str) -> Values:
    """The values and more of them, each of which may use those before it."""
    known = dict(values)
    for name, value in more.items():
        if name in known:
            raise UserError(f"{where}: {name!r} has a value already ({known[name]!r}): expected a new name")
        known[name] = fill(value, known, f"{where}: {name}")
    return known
