import json
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.shards import Shards
from simgan.tasks.digits import Digits
from tests.processes import fork
from tests.simgan.domains import write_domain


@pytest.mark.slow
def test_an_evaluation_leaves_scores_and_sections(tmp_path: Path, trained: Path, synthetic: Path, real: Path) -> None:
    write_domain(tmp_path / "real" / "test", (20,), seed=2, grey=160)
    write_domain(tmp_path / "synthetic" / "test", (10,), seed=3)
    (tmp_path / "real" / "train").symlink_to(real)
    (tmp_path / "synthetic" / "train").symlink_to(synthetic)
    words = [f"run={trained}", f"synthetic={tmp_path / 'synthetic'}", f"real={tmp_path / 'real'}", "threads=1"]
    ended = fork(tmp_path / "log", "simgan.evaluate", *words, "classifier.steps=4", "classifier.width=4")
    assert ended.code == 0, ended.output
    out = trained / "evaluation"
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores["distances"]) == {"simulated", "refined", "real test"}
    assert set(scores["accuracies"]) == {"simulated", "refined", "real"}
    assert [scores["accuracies"][name]["train_count"] for name in ("simulated", "refined", "real")] == [30, 30, 20]
    assert all(found["test_count"] == 20 for found in scores["accuracies"].values())
    assert scores["distances"]["refined"]["name"] == "fd_classifier20"
    sections = {path.stem: json.loads(path.read_text()) for path in (out / "report").glob("*.json")}
    assert len(sections["scores"]["table"]["rows"]) == 3 and len(sections["classes"]["table"]["rows"]) == 10


def test_domains_whose_classes_differ_are_not_scored(tmp_path: Path, synthetic: Path) -> None:
    other = Shards(synthetic)
    other.classes = ["naught", *other.classes[1:]]
    with pytest.raises(UserError, match="cannot be tested"):
        Digits().check_scoring(Shards(synthetic), other)
    Digits().check_scoring(Shards(synthetic), Shards(synthetic))


def test_augmentation_is_refused_for_hands_which_have_their_own(tmp_path: Path) -> None:
    words = ["task=hand", "run=nowhere", "synthetic=nowhere", "real=nowhere", "estimator.augment=true"]
    ended = fork(tmp_path / "log", "simgan.evaluate", *words)
    assert ended.code == 2
    assert ended.output.count("\n") == 1 and "estimator.augment=true: expected false for task=hand" in ended.output
