"""Scores the answers to a visual Turing test: confusion, accuracy, and a test against chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from cluster_jobs.turing_test.page import KINDS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Confusion:
    """Counts of answers by truth: ``counts[truth][answer]``."""

    counts: dict[str, dict[str, int]]

    @property
    def total(self) -> int:
        return sum(sum(said.values()) for said in self.counts.values())

    @property
    def correct(self) -> int:
        return sum(self.counts[kind][kind] for kind in KINDS)

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def p_value(self) -> float:
        """The exact one-sided binomial p: as many right or more, if everybody guessed (probability ½ each)."""
        from scipy.stats import binomtest

        return float(binomtest(self.correct, self.total, 0.5, alternative="greater").pvalue)

    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) interval of the accuracy."""
        from scipy.stats import binomtest

        low, high = binomtest(self.correct, self.total).proportion_ci(CONFIDENCE, "exact")
        return float(low), float(high)


def confusion(truth: dict[str, str], answers: dict[str, str]) -> Confusion:
    """Counts one person's answers, both by image id."""
    counts = {kind: dict.fromkeys(KINDS, 0) for kind in KINDS}
    for id, answer in answers.items():
        counts[truth[id]][answer] += 1
    return Confusion(counts)


def pooled(confusions: Sequence[Confusion]) -> Confusion:
    return Confusion(
        {kind: {said: sum(one.counts[kind][said] for one in confusions) for said in KINDS} for kind in KINDS}
    )


def read_key(path: Path) -> dict[str, Any]:
    """Raises UserError: no key that ``cluster_jobs.turing`` wrote."""
    key = _read(path)
    truth = key.get("truth")
    if (
        (key.get("format"), type(key.get("test"))) != (1, str)
        or not isinstance(truth, dict)
        or not truth
        or any(kind not in KINDS for kind in truth.values())
    ):
        raise UserError(f"{path}: expected the key.json that cluster_jobs.turing wrote")
    return key


def read_answers(path: Path, key: dict[str, Any], *, incomplete: bool = False) -> tuple[str, dict[str, str]]:
    """One exported file: the subject (the file's name where nobody gave one) and the answers by image id.

    Raises:
        UserError: it is damaged, of another test, names images twice or unknown ones, or has no answer to some
            (to any, where it may be ``incomplete``).
    """
    content = _read(path)
    rows = content.get("answers")
    if content.get("format") != 1 or not isinstance(rows, list):
        raise UserError(f"{path}: expected answers as the test's page exports them")
    if content.get("test") != key["test"]:
        raise UserError(f"{path}: answers to the test {content.get('test')!r}, but the key is of {key['test']!r}")
    answers: dict[str, str] = {}
    for row in rows:
        id, answer = (str(row.get("id")), row.get("answer")) if isinstance(row, dict) else ("", None)
        if id in answers:
            raise UserError(f"{path}: two answers to image {id!r}")
        if id not in key["truth"] or answer not in KINDS:
            expected = f"expected an image of the test and {' or '.join(KINDS)}"
            raise UserError(f"{path}: image {id!r}, answer {answer!r}: {expected}")
        answers[id] = answer
    missing = len(key["truth"]) - len(answers)
    if not answers or (missing and not incomplete):
        remedy = "finish the test, or count the others with allow_incomplete=true"
        raise UserError(f"{path}: {missing} of {len(key['truth'])} images have no answer; {remedy}")
    return str(content.get("subject") or path.stem), answers


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content
