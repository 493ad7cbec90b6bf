"""Typed configurations from command-line arguments ``key=value``, and the small main function of every command.

Hydra's compose API turns command-line arguments (``key=value``, ``+recipe=NAME``) into a dataclass; this module adds
what scripts need: path values are taken literally, an error is one line, and the result is an exit code and an exit
record.
"""

import dataclasses
import difflib
import shlex
import sys
import types
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cluster_jobs.cli.exit_record import (
    EXIT_DONE,
    EXIT_PREEMPTED,
    EXIT_USER,
    ExitRecord,
    defer_to_rank_zero,
    launched_ranks,
    leave,
    rank,
    wait_for_watchdog,
)
from cluster_jobs.cli.keys import CommandKeys, Damaged, Precision, RollbackKeys, RunKeys, TrainKeys, group, option
from cluster_jobs.core.errors import DamagedSample, Preempted, ReportedByMainRank, UnreadableShard, UserError
from cluster_jobs.core.files import disk_errors_as_user_errors

__all__ = [
    "MISSING",
    "CommandKeys",
    "Damaged",
    "Precision",
    "RollbackKeys",
    "RunKeys",
    "TrainKeys",
    "command",
    "default_values",
    "group",
    "help_text",
    "option",
    "parse",
    "to_dict",
    "under_present_names",
]

Config = TypeVar("Config")


def to_dict(config: Any) -> Any:
    """A configuration as plain values (enumerations by name), for JSON, YAML and comparison."""
    if isinstance(config, Enum):
        return config.name
    if dataclasses.is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, list | tuple):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {name: to_dict(item) for name, item in config.items()}
    return config


def default_values(schema: type) -> dict[str, Any]:
    """The defaults of a schema's keys as plain values; those of required keys are left out."""
    return {name: value for name, value in to_dict(schema()).items() if value != MISSING}


def under_present_names(schema: type, values: dict[str, Any]) -> dict[str, Any]:
    """Plain values of a configuration of an older version, with keys and values as they are called now."""
    former = {name: field for field in dataclasses.fields(schema) if (name := field.metadata.get("formerly"))}
    renamed = {}
    for name, value in values.items():
        field = former.get(name)
        renamed[field.name if field else name] = field.metadata["former_values"].get(value, value) if field else value
    return renamed


def _flatten(schema: Any, prefix: str = "") -> dict[str, tuple[dataclasses.Field, Any]]:
    """Every key of a schema by its dotted name, with its field and type."""
    hints = typing.get_type_hints(schema)
    keys: dict[str, tuple[dataclasses.Field, Any]] = {}
    for field in dataclasses.fields(schema):
        kind = _without_none(hints[field.name])
        if dataclasses.is_dataclass(kind):
            keys |= _flatten(kind, f"{prefix}{field.name}.")
        else:
            keys[prefix + field.name] = (field, kind)
    return keys


def _without_none(kind: Any) -> Any:
    """``int`` of ``int | None``: a key that may be left unset looks like any other to the user."""
    kinds = [part for part in typing.get_args(kind) if part is not type(None)]
    return kinds[0] if isinstance(kind, types.UnionType) and len(kinds) == 1 else kind


def _expected(kind: Any) -> str:
    """A type in words, for messages and the help page."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name for member in kind)
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, str(kind).replace("typing.", ""))


def help_text(schema: type, conf: str, module: str) -> str:
    """The ``--help`` page: every key with its type, default and meaning."""
    recipes = _recipes(conf)
    lines = [(schema.__doc__ or "").strip(), "", f"usage: accelerate launch -m {module} key=value ...", ""]
    for name, (field, kind) in _flatten(schema).items():
        default = field.default
        preset = "required" if default == MISSING else "unset" if default is None else f"default {to_dict(default)!r}"
        lines.append(f"  {name:<22} {field.metadata.get('help', '')} [{_expected(kind)}; {preset}]")
    lines += ["", "  +recipe=NAME           a published set of keys" + (f": {', '.join(recipes)}" if recipes else "")]
    return "\n".join(lines)


def _recipes(conf: str) -> list[str]:
    package = Path(sys.modules[conf].__file__ or "").parent if conf in sys.modules else None
    return sorted(path.stem for path in (package / "recipe").glob("*.yaml")) if package else []


def _check_word(word: str, keys: dict[str, tuple[dataclasses.Field, Any]]) -> None:
    """Raises UserError for a word that is no override, names an unknown key, or holds a value of the wrong type."""
    name, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{word!r} on the command line: expected key=value (--help lists the keys)")
    if name not in keys:
        for present, (field, _) in keys.items():
            if field.metadata.get("formerly") == name:
                now = f"{present}={field.metadata['former_values'].get(value, value)}"
                raise UserError(f"{word} on the command line: this key is called {present} now: write {now}")
        near = difflib.get_close_matches(name, keys, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(keys)}"
        raise UserError(f"unknown key {name!r} in {word!r} on the command line: {hint}")
    kind = keys[name][1]
    if isinstance(kind, type) and issubclass(kind, Enum) and value not in kind.__members__:
        near = difflib.get_close_matches(value, kind.__members__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{word} on the command line: expected {_expected(kind)}{hint}")


def parse(schema: type[Config], words: Sequence[str], conf: str) -> Config:
    """Builds a configuration from command-line arguments.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing required key, or an unknown recipe.
    """
    keys = _flatten(schema)
    literal: dict[str, str] = {}
    composed: list[str] = []
    for word in words:
        name = word.partition("=")[0]
        if name == "+recipe":
            recipe = word.partition("=")[2]
            if recipe not in _recipes(conf):
                raise UserError(
                    f"{word} on the command line: expected one of {', '.join(_recipes(conf)) or 'no recipes'}"
                )
            composed.append(word)
            continue
        _check_word(word, keys)
        if keys[name][0].metadata.get("path"):
            literal[name] = word.partition("=")[2]  # spaces, accents, quotes, '=' and '${' need no quoting
        else:
            composed.append(word)
    config = _compose(schema, composed, conf, keys)
    for name, value in literal.items():
        owner: Any = config
        *groups, leaf = name.split(".")
        for step in groups:
            owner = getattr(owner, step)
        setattr(owner, leaf, value)
    for name, (field, _) in keys.items():
        if field.default == MISSING and _get(config, name) == "":
            raise UserError(f"{name}= on the command line: expected a value")
    missing = [name for name in keys if _get(config, name) == MISSING]
    if missing:
        raise UserError(f"missing {', '.join(f'{name}=…' for name in missing)} (--help explains every key)")
    return config


def _get(config: Any, name: str) -> Any:
    for step in name.split("."):
        config = getattr(config, step)
    return config


def _compose(
    schema: type[Config], words: list[str], conf: str, keys: dict[str, tuple[dataclasses.Field, Any]]
) -> Config:
    ConfigStore.instance().store(name="schema", node=schema)
    with initialize_config_module(config_module=conf, version_base="1.3"):
        try:
            values = _composed_values(words)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(words, keys, error)) from error
    return typing.cast(Config, _instantiate(schema, values))


def _composed_values(words: list[str]) -> dict[str, Any]:
    return typing.cast(dict[str, Any], OmegaConf.to_container(compose("schema", overrides=words), resolve=True))


def _instantiate(schema: type, values: dict[str, Any]) -> Any:
    """A dataclass from plain values; missing required keys stay MISSING until the literal paths are in."""
    hints = typing.get_type_hints(schema)
    parts = {
        name: _instantiate(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
        for name, value in values.items()
    }
    return schema(**parts)


def _explain(words: list[str], keys: dict, error: Exception) -> str:
    """An error message for the word that Hydra refuses, with what was expected instead."""
    for word in words:
        name = word.partition("=")[0]
        if name in keys:
            try:
                _composed_values([word])
            except (HydraException, OmegaConfBaseException):
                return f"{word} on the command line: expected {_expected(keys[name][1])}"
    return " ".join(str(error).split())


class Command(Generic[Config]):
    """A command's main function: parses the words, runs the body, and ends with an exit code and an exit record."""

    def __init__(
        self, body: Callable[[Config], None], schema: type[Config], conf: str, single_process: bool = False
    ) -> None:
        self.body, self.schema, self.conf, self.single_process = body, schema, conf, single_process
        self.__doc__ = body.__doc__
        self.module = body.__module__

    def __call__(self, words: Sequence[str] | None = None) -> int:
        """Returns the exit code; a launched rank among several does not return but ends there."""
        code = self._run(sys.argv[1:] if words is None else words)
        if launched_ranks() > 1:
            leave(code)
        return code

    def _run(self, words: Sequence[str]) -> int:
        name = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = name.name if self.module == "__main__" and name else self.module
        if any(word in ("--help", "-h") for word in words):
            __import__(self.conf)
            print(help_text(self.schema, self.conf, module))
            return EXIT_DONE
        command_line = shlex.join(["python", "-m", module, *words])
        record = ExitRecord(command_line, words)
        try:
            if self.single_process and launched_ranks() > 1:
                raise UserError(
                    f"works in one process but was launched in {launched_ranks()}: use python -m, and in a pipeline "
                    "give its stage processes: 1 and gpus: 0"
                )
            __import__(self.conf)
            config = parse(self.schema, words, self.conf)
            record.quiet = getattr(config, "validate", False)
            if isinstance(config, TrainKeys | CommandKeys):
                config.check()
            if record.quiet:
                self.body(config)
                _print_main(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True).rstrip())
                return EXIT_DONE
            record.write("running", None, "")
            with disk_errors_as_user_errors():
                self.body(config)
        except Preempted as stop:
            record.write("preempted", EXIT_PREEMPTED, str(stop))
            _print_main(f"{module}: {stop}")
            return EXIT_PREEMPTED
        except ReportedByMainRank:
            defer_to_rank_zero()
            return EXIT_USER
        except UserError as error:
            if not isinstance(error, DamagedSample | UnreadableShard):
                defer_to_rank_zero()
            print(f"{module}: error: {error}", file=sys.stderr, flush=True)  # before a slow disk has the record
            record.write("failed", EXIT_USER, str(error))
            return EXIT_USER
        except BaseException as error:
            wait_for_watchdog()
            record.write("failed", 1, f"{type(error).__name__}: {error}")
            raise
        record.write("done", EXIT_DONE, "")
        return EXIT_DONE


def _print_main(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def command(
    schema: type[Config], *, conf: str | None = None, single_process: bool = False
) -> Callable[[Callable[[Config], None]], Command[Config]]:
    """Makes a function of a configuration a command: ``if __name__ == "__main__": sys.exit(main())``.

    Args:
        single_process: several processes would write the same files at once, so a launch of several is refused.
    """

    def decorate(body: Callable[[Config], None]) -> Command[Config]:
        module = schema.__module__
        if module == "__main__":
            spec = sys.modules["__main__"].__spec__
            assert spec is not None, "commands run with python -m"
            module = spec.name
        return Command(body, schema, conf or f"{module.partition('.')[0]}.conf", single_process)

    return decorate
