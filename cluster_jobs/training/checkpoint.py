"""Checkpoints that survive a kill at any moment: a safetensors file and, written last, a JSON manifest with its digest.

``NNNNNNNNNNNN.safetensors`` (named by images seen) holds the tensors; ``NNNNNNNNNNNN.json`` the rest of the state, the
first file's SHA-256, the score, and a seal: the SHA-256 of all that. A checkpoint is valid when both files exist and
agree; a damaged one is reported and the one before it is used.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json, remove, temporary_path, write_json

VERSION = 1
State = dict[str, Any]


def _split(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Moves the tensors of a nested state into ``tensors`` and returns the JSON tree that refers to them."""
    if isinstance(value, torch.Tensor):
        assert name not in tensors, f"{name}: two tensors of one name"
        # a copy, because safetensors refuses tensors that share memory (tied weights, views of one buffer)
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[key, _split(item, f"{name}/{key}", tensors)] for key, item in value.items()]
        return {"dict": items}  # pairs, because JSON would turn an optimizer's integer keys into text
    if isinstance(value, list | tuple):
        return {"list": [_split(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), f"{name}: cannot store a {type(value)}"
    return {"value": value}


def _join(tree: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_split`."""
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "dict" in tree:
        return {key: _join(item, tensors) for key, item in tree["dict"]}
    if "list" in tree:
        return [_join(item, tensors) for item in tree["list"]]
    return tree["value"]


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest, so that a flipped bit in a learning rate does not pass."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def save_state(path: Path, state: State, **facts: Any) -> None:
    """Writes ``path`` (``….safetensors``), then its manifest ``….json``, which makes the checkpoint valid.

    Args:
        state: nested dicts and lists of tensors, numbers, text, booleans and None.
        facts: further entries of the manifest, for example ``nimg`` and ``score``.

    Raises:
        UserError: the file system refuses (full, read-only); the directory is left without partial files.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _split(state, "", tensors)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        digest = _digest(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        remove(temporary)
        raise UserError(f"cannot write the checkpoint {path}: {error}") from error
    manifest = {"version": VERSION, "sha256": digest, **facts, "state": tree}
    write_json(path.with_suffix(".json"), {**manifest, "seal": _seal(manifest)})


def load_state(path: Path) -> tuple[State, dict[str, Any]]:
    """Reads a checkpoint; returns its state (tensors on the CPU) and its manifest without the state.

    Raises:
        UserError: the checkpoint is missing, damaged, or written by another version.
    """
    manifest = _read_manifest(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    if _digest(path) != manifest["sha256"]:
        raise UserError(f"{path}: torn or changed checkpoint (its SHA-256 is not the one in {path.stem}.json)")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: unreadable checkpoint ({error})") from error
    return _join(manifest.pop("state"), tensors), manifest


def load_entry(path: Path, name: str) -> State | None:
    """One entry of a checkpoint's state, read from the manifest alone; None where the state has no such entry.

    Args:
        name: of an entry that holds no tensors.

    Raises:
        UserError: the manifest is missing, damaged, or written by another version.
    """
    tree = dict(_read_manifest(path)["state"]["dict"]).get(name)
    return None if tree is None else _join(tree, {})


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, with the JSON tree of its state and without its seal."""
    manifest = read_json(path.with_suffix(".json"))
    if manifest.get("version") != VERSION:
        raise UserError(f"{path}: checkpoint version {manifest.get('version')}, this program reads version {VERSION}")
    if manifest.pop("seal", None) != _seal(manifest):
        raise UserError(f"{path.with_suffix('.json')}: torn or changed manifest (its seal does not fit)")
    return manifest


class CheckpointStore:
    """The checkpoints of one run: the newest ``keep_last``, the ``keep_best`` with the best score, and those at the
    images seen in ``protected``.

    ``abandoned_nimg`` counts the images of all training that rollbacks have discarded (see :meth:`rewind`). It is part
    of every manifest: of two checkpoints the one with the larger count is the newer.
    """

    def __init__(self, directory: Path, keep_last: int = 2, keep_best: int = 1) -> None:
        self.directory, self.keep_last, self.keep_best = directory, keep_last, keep_best
        self.protected: frozenset[int] = frozenset()
        self.abandoned_nimg = 0

    def paths(self) -> list[Path]:
        """Checkpoints that have both files, oldest first."""
        tensor_files = sorted(self.directory.glob("[0-9]*.safetensors"))
        return [path for path in tensor_files if path.with_suffix(".json").is_file()]

    def path(self, nimg: int) -> Path:
        """The file of the checkpoint of ``nimg`` images seen, whether it exists or not."""
        return self.directory / f"{nimg:012d}.safetensors"

    def save(
        self,
        state: State,
        nimg: int,
        *,
        score: float | None = None,
        higher_is_better: bool = False,
        means: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the checkpoint of ``nimg`` images seen and deletes what retention does not keep.

        Args:
            score: lower scores are better, unless ``higher_is_better``.
            means: sums of metrics since the last log line, for the manifest (see ``Metrics.pending``).
        """
        facts: dict[str, Any] = {"nimg": nimg, "score": score, "abandoned_nimg": self.abandoned_nimg}
        if higher_is_better:
            facts["higher_is_better"] = True
        if means is not None:
            facts["means"] = means
        save_state(self.path(nimg), state, **facts)
        self._retain(nimg)

    def rewind(self, nimg: int, to_nimg: int, name: str, entry: State) -> None:
        """Discards the training after ``to_nimg`` images, up to ``nimg``: makes that checkpoint the newest.

        One rename decides; a kill before it changes nothing.

        Args:
            name: the entry of the checkpoint's state that is replaced.
            entry: its new value, without tensors.

        Raises:
            UserError: there is no such checkpoint, or it is damaged; nothing was changed.
        """
        load_state(self.path(to_nimg))
        manifest = read_json(self.path(to_nimg).with_suffix(".json"))
        del manifest["seal"]
        tensors: dict[str, torch.Tensor] = {}
        entries = dict(manifest["state"]["dict"]) | {name: _split(entry, "", tensors)}
        assert not tensors, f"{name}: holds the tensors {', '.join(tensors)}"
        manifest["state"] = {"dict": list(entries.items())}
        manifest["abandoned_nimg"] = self.abandoned_nimg + nimg - to_nimg
        write_json(self.path(to_nimg).with_suffix(".json"), {**manifest, "seal": _seal(manifest)})
        self.abandoned_nimg = manifest["abandoned_nimg"]
        self.sweep(to_nimg)

    def _retain(self, nimg: int) -> None:
        paths = [path for path in self.paths() if int(path.stem) <= nimg]  # a newer one is damaged: resume skipped it
        kept = set(paths[-self.keep_last :]) | set(self._scored(paths)[: self.keep_best])
        kept |= {path for path in paths if int(path.stem) in self.protected}
        for path in self.paths():
            if path not in kept:
                _delete(path)
        self.sweep()

    def sweep(self, nimg: int | None = None) -> None:
        """Removes what a kill left behind: temporary files and single files of checkpoints.

        With ``nimg``, the images of the newest checkpoint, also the later checkpoints that a rollback has discarded.
        """
        for path in self.paths():
            if nimg is not None and int(path.stem) > nimg and _abandoned(path) < self.abandoned_nimg:
                _delete(path)
        whole = {path.stem for path in self.paths()}
        for path in self.directory.glob("*"):
            if path.name.endswith(".tmp") or path.stem not in whole:
                path.unlink(missing_ok=True)

    def _scored(self, paths: list[Path]) -> list[Path]:
        """The checkpoints that have a score, the best first; of equal ones the older first."""
        losses = [(loss, path) for path in paths if (loss := _score_as_loss(path)) is not None]
        return [path for _, path in sorted(losses)]

    def facts(self, nimg: int) -> dict[str, Any]:
        """The manifest of a valid checkpoint without the state: images seen, score, digest and so on."""
        manifest = read_json(self.path(nimg).with_suffix(".json"))
        return {name: value for name, value in manifest.items() if name not in ("state", "seal")}

    def latest(self) -> tuple[State, int] | None:
        """The state and images seen of the newest valid checkpoint; a damaged one is reported and skipped."""
        stems = {path.stem for path in self.directory.glob("[0-9]*.*")}  # a single file of the two is reported too
        paths = [self.directory / f"{stem}.safetensors" for stem in stems]
        for path in sorted(paths, key=lambda path: (_abandoned(path), path.stem), reverse=True):
            try:
                state, manifest = load_state(path)
            except UserError as error:
                print(f"warning: {error}; trying the checkpoint before it", file=sys.stderr, flush=True)
                continue
            self.abandoned_nimg = manifest.get("abandoned_nimg", 0)
            return state, manifest["nimg"]
        return None

    def best(self) -> Path | None:
        """The checkpoint with the best score, or None when none has one."""
        scored = self._scored(self.paths())
        return scored[0] if scored else None


def _delete(path: Path) -> None:
    path.with_suffix(".json").unlink()  # first: a checkpoint without its manifest is no checkpoint
    path.unlink()


def _score_as_loss(path: Path) -> float | None:
    """A checkpoint's score, 1 - score where higher is better; None when it has none or its manifest is damaged.

    Older runs of selfsup.pretrain stored 1 - accuracy as a score: theirs compare with those of the same run today.
    """
    try:
        manifest = read_json(path.with_suffix(".json"))
    except UserError:
        return None
    score = manifest.get("score")
    return 1 - score if score is not None and manifest.get("higher_is_better") else score


def _abandoned(path: Path) -> float:
    """A checkpoint's ``abandoned_nimg``; infinite when its manifest is damaged: it is tried first and reported."""
    try:
        return read_json(path.with_suffix(".json")).get("abandoned_nimg", 0)
    except UserError:
        return math.inf
