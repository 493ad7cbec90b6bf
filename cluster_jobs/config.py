"""Typed configurations from ``key=value`` words, and the small main function of every command.

Hydra's compose API reads the words (``key=value``, ``+recipe=NAME``) against a dataclass; this module adds what scripts
need: path values are taken literally, a wrong key or value is one line, and the outcome is an exit code and a file.
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

from cluster_jobs.errors import DamagedSample, Preempted, ToldByMain, UnreadableShard, UserError
from cluster_jobs.files import disk_refusals_told
from cluster_jobs.outcome import EXIT_DONE, EXIT_PREEMPTED, EXIT_USER, Outcome, rank

__all__ = [
    "MISSING",
    "CommandKeys",
    "Damaged",
    "Precision",
    "RunKeys",
    "TrainKeys",
    "command",
    "default_values",
    "help_text",
    "key",
    "parse",
    "to_dict",
]

Config = TypeVar("Config")


def key(default: Any, help: str, *, path: bool = False) -> Any:
    """A configuration key with its meaning. The value of a ``path`` key is taken literally from the command line."""
    metadata = {"help": help, "path": path}
    if dataclasses.is_dataclass(default) or isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(schema: type, help: str) -> Any:
    """A nested group of keys, written ``group.key=value``."""
    return dataclasses.field(default_factory=schema, metadata={"help": help, "path": False})


class Precision(Enum):
    no = "no"
    bf16 = "bf16"


class Damaged(Enum):
    fatal = "fatal"
    replace = "replace"


@dataclasses.dataclass
class RunKeys:
    dir: str = key(MISSING, "run directory: configuration, metrics, checkpoints, samples", path=True)


@dataclasses.dataclass
class TrainKeys:
    """The keys that every training command shares. Cadences are in images seen (``*_nimg``)."""

    run: RunKeys = group(RunKeys, "where the run lives")
    seed: int = key(0, "seed of every keyed random draw")
    batch: int = key(64, "images a step over all processes (global batch)")
    total_nimg: int = key(100_000, "images to see in all; may grow when a run is continued")
    log_nimg: int = key(2_000, "images between two lines of metrics")
    checkpoint_nimg: int = key(20_000, "images between two checkpoints")
    sample_nimg: int = key(20_000, "images between two sample pictures")
    eval_nimg: int = key(50_000, "images between two evaluations on the validation part")
    keep_last: int = key(2, "newest checkpoints to keep")
    keep_best: int = key(1, "best-scored checkpoints to keep besides")
    workers: int = key(-1, "reader processes a rank; 0 reads in the training process, -1 chooses")
    window: str = key("64", "blocks shuffled together; 'all' is the full shuffle")
    damaged: Damaged = key(Damaged.fatal, "a sample that cannot be decoded: stop, or replace it by the next one")
    precision: Precision = key(Precision.no, "automatic mixed precision")
    accumulate: int = key(1, "micro-batches a rank and step: same batch, less memory; batch norm sees each alone")
    compile: bool = key(False, "torch.compile the networks that learn; takes minutes at the start")
    threads: int = key(0, "CPU threads a process; 0 takes the default and freezes it with the run")
    validate: bool = key(False, "check and print the configuration, then exit")
    init_from: str = key("", "start a new run from another run's weights", path=True)
    rebatch: bool = key(False, "go on with another batch: the streams stay at their image position, the steps change")
    watchdog_seconds: int = key(1_800, "seconds without a finished step after which a hanging run ends; 0: never")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        for name in ("batch", "total_nimg", "log_nimg", "checkpoint_nimg", "sample_nimg", "eval_nimg", "keep_last"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected a positive integer")
        for name, least in (("workers", -1), ("threads", 0), ("keep_best", 0), ("watchdog_seconds", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: expected an integer of at least {least}")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: expected a positive divisor of batch={self.batch}")
        if self.window != "all" and not (self.window.isdigit() and int(self.window) > 0):
            raise UserError(f"window={self.window}: expected 'all' or a positive number of blocks")


@dataclasses.dataclass
class CommandKeys:
    """The keys that every command without a run directory of its own shares."""

    seed: int = key(0, "seed of every keyed random draw")
    threads: int = key(0, "CPU threads a process; 0 takes the default")
    validate: bool = key(False, "check and print the configuration, then exit")

    def check(self) -> None:
        """Raises UserError for a number outside its range."""
        if self.threads < 0:
            raise UserError(f"threads={self.threads}: expected an integer of at least 0")


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
    """A type in words: what a value of it looks like."""
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
        shown = "required" if default == MISSING else "unset" if default is None else f"default {to_dict(default)!r}"
        lines.append(f"  {name:<22} {field.metadata.get('help', '')} [{_expected(kind)}; {shown}]")
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
        near = difflib.get_close_matches(name, keys, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(keys)}"
        raise UserError(f"unknown key {name!r} in {word!r} on the command line: {hint}")
    kind = keys[name][1]
    if isinstance(kind, type) and issubclass(kind, Enum) and value not in kind.__members__:
        near = difflib.get_close_matches(value, kind.__members__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{word} on the command line: expected {_expected(kind)}{hint}")


def parse(schema: type[Config], words: Sequence[str], conf: str) -> Config:
    """Builds a configuration from command-line words.

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
    """The one word that Hydra refuses, with what was expected instead."""
    for word in words:
        name = word.partition("=")[0]
        if name in keys:
            try:
                _composed_values([word])
            except (HydraException, OmegaConfBaseException):
                return f"{word} on the command line: expected {_expected(keys[name][1])}"
    return " ".join(str(error).split())


class Command(Generic[Config]):
    """A command's main function: parses the words, runs the body, turns the outcome into an exit code and a file."""

    def __init__(self, body: Callable[[Config], None], schema: type[Config], conf: str) -> None:
        self.body, self.schema, self.conf = body, schema, conf
        self.__doc__ = body.__doc__
        self.module = body.__module__

    def __call__(self, words: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if words is None else words
        name = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = name.name if self.module == "__main__" and name else self.module
        if any(word in ("--help", "-h") for word in words):
            __import__(self.conf)
            print(help_text(self.schema, self.conf, module))
            return EXIT_DONE
        command_line = shlex.join(["python", "-m", module, *words])
        outcome = Outcome(command_line, words)
        try:
            __import__(self.conf)
            config = parse(self.schema, words, self.conf)
            outcome.quiet = getattr(config, "validate", False)
            if isinstance(config, TrainKeys | CommandKeys):
                config.check()
            if outcome.quiet:
                self.body(config)
                _print_main(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True).rstrip())
                return EXIT_DONE
            outcome.write("running", None, "")
            with disk_refusals_told():
                self.body(config)
        except Preempted as stop:
            outcome.write("preempted", EXIT_PREEMPTED, str(stop))
            _print_main(f"{module}: {stop}")
            return EXIT_PREEMPTED
        except ToldByMain:
            return EXIT_USER
        except UserError as error:
            outcome.write("failed", EXIT_USER, str(error))
            if rank() == 0 or isinstance(error, DamagedSample | UnreadableShard):
                print(f"{module}: error: {error}", file=sys.stderr, flush=True)
            return EXIT_USER
        except BaseException as error:
            outcome.write("failed", 1, f"{type(error).__name__}: {error}")
            raise
        outcome.write("done", EXIT_DONE, "")
        return EXIT_DONE


def _print_main(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def command(schema: type[Config], *, conf: str | None = None) -> Callable[[Callable[[Config], None]], Command[Config]]:
    """Makes a function of a configuration a command: ``if __name__ == "__main__": sys.exit(main())``."""

    def decorate(body: Callable[[Config], None]) -> Command[Config]:
        module = schema.__module__
        if module == "__main__":
            spec = sys.modules["__main__"].__spec__
            assert spec is not None, "commands run with python -m"
            module = spec.name
        return Command(body, schema, conf or f"{module.partition('.')[0]}.conf")

    return decorate
