"""The frozen configuration of a run, ``run.dir/config.yaml``: what it was started with, and which keys may change."""

from pathlib import Path
from typing import Any

import yaml

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, write_atomically

CHANGEABLE = frozenset(
    ("run", "total_nimg", "log_nimg", "checkpoint_nimg", "sample_nimg", "eval_nimg", "keep_last", "keep_best")
    + ("workers", "validate", "rebatch", "watchdog_seconds", "rollback")
)


def read_frozen(directory: Path) -> dict[str, Any] | None:
    """The configuration that a run was last started with; None where there is no run.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no configuration; it was damaged or written by something else")
    return config


def write_frozen(directory: Path, config: dict[str, Any]) -> None:
    """Freezes a configuration, given as plain values."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_atomically(directory / "config.yaml", text.encode())


def check_unchanged(directory: Path, frozen: dict[str, Any], config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuses to continue a run under another configuration, and says what differs. The number of processes is free.

    Args:
        defaults: of every key; a run that was started before a key existed has the key's default.

    Raises:
        UserError: a key differs that must not; with ``rebatch`` true, ``batch`` may.
    """
    frozen = {**defaults, **frozen}
    differences = [
        f"{name}: {frozen.get(name)!r} -> {config.get(name)!r}" + (" (rebatch=true allows it)" * (name == "batch"))
        for name in sorted(set(frozen) | set(config))
        if name not in CHANGEABLE
        and frozen.get(name) != config.get(name)
        and not (name == "batch" and config["rebatch"])
    ]
    if config["total_nimg"] < frozen.get("total_nimg", 0):
        differences.append(f"total_nimg: {frozen['total_nimg']} -> {config['total_nimg']} (it may only grow)")
    if differences:
        raise UserError(
            f"{directory} was started with another configuration ({'; '.join(differences)}); choose a new run.dir"
        )


def check_facts(path: Path, facts: dict[str, Any], started_with: str) -> None:
    """Refuses to continue a run whose JSON file of facts, if there is one, differs from `facts`.

    A fact that the file lacks, because the run was started by an earlier version, is not compared.

    Args:
        started_with: what the facts describe, for the message.

    Raises:
        UserError: a fact differs.
    """
    frozen = read_json(path) if path.is_file() else {}
    different = [name for name in facts if name in frozen and frozen[name] != facts[name]]
    if different:
        raise UserError(
            f"{path.parent} was started with {started_with} ({', '.join(different)} differ); choose a new run.dir"
        )
