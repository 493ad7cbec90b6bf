import json
import signal
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.training.checkpoint import CheckpointStore
from simgan.training.config import RefinerTrainConfig
from tests.processes import fork, fork_ranks
from tests.simgan.domains import train_words, write_domain

pytestmark = pytest.mark.slow
LAST = "checkpoints/000000000080.safetensors"


def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, synthetic: Path, real: Path, trained: Path
) -> None:
    run = tmp_path / "run"
    words = train_words(synthetic, real, run)
    env = {"KILL_AT": "*/checkpoints/000000000040.json"}
    first = fork(tmp_path / "first", "tests.killed", "simgan.train", *words, env=env)
    assert first.code == -signal.SIGKILL, first.output
    second = fork(tmp_path / "second", "simgan.train", *words)
    assert second.code == 0, second.output
    assert "at 32 images" in second.output
    assert (run / LAST).read_bytes() == (trained / LAST).read_bytes()


def test_the_labels_of_real_images_play_no_part(tmp_path: Path, synthetic: Path, trained: Path) -> None:
    unlabelled = write_domain(tmp_path / "real", (9, 11), seed=1, grey=160, labels=False)
    ended = fork(tmp_path / "log", "simgan.train", *train_words(synthetic, unlabelled, tmp_path / "run"))
    assert ended.code == 0, ended.output
    assert (tmp_path / "run" / LAST).read_bytes() == (trained / LAST).read_bytes()


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_two_processes_and_two_micro_batches_train_what_one_of_each_trains(
    processes: int, accumulate: int, tmp_path: Path, synthetic: Path, real: Path, trained: Path
) -> None:
    """No network here has batch norm, so all differ by rounding, which Adam carries into every weight: 2e-3."""
    words = train_words(synthetic, real, tmp_path / "run", accumulate=accumulate)
    start = fork_ranks if processes == 2 else lambda *launched: [fork(*launched)]
    ranks = start(tmp_path / "log", "simgan.train", *words)
    assert [rank.code for rank in ranks] == [0] * processes, ranks[0].output
    stores = (CheckpointStore(run / "checkpoints") for run in (tmp_path / "run", trained))
    (two, _), (one, _) = (found for store in stores if (found := store.latest()) is not None)
    for part in ("refiner", "discriminator", "refiner_ema"):
        for name, weight in one[part].items():
            assert (two[part][name] - weight).abs().max() < 2e-3, f"{part}/{name}"
    assert two["history"]["filled"] == one["history"]["filled"] == 12
    assert (two["history"]["images"] - one["history"]["images"]).abs().max() < 1e-2


def test_a_run_leaves_both_loss_terms_pictures_and_its_network(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/change", "loss/adversarial", "loss/d_refined", "loss/d_real"} <= set(lines[-1])
    assert [line["nimg"] for line in lines] == [40, 80]
    assert sorted(path.name for path in (trained / "samples").iterdir()) == ["000000000040.png", "000000000080.png"]
    assert json.loads((trained / "network.json").read_text())["width"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch=7"], "batch=7"),
        (["history=3"], "history=3"),
        (["accumulate=3"], "accumulate=3: expected a positive divisor of batch=8"),
        (["fold=3"], "fold=3"),
        (["schedule=auto", "k_d=1", "rebatch=true"], "rebatch=true: expected false with schedule=auto"),
        (["regularisation=-1"], "regularisation=-1"),
        (["patches=gase"], "did you mean 'gaze'"),
        (["patches=hand"], "patches=hand: D would see images of 8 × 8 as one patch"),
        (["synthetic=nowhere"], "'nowhere' does not exist"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, synthetic: Path, real: Path
) -> None:
    ended = fork(tmp_path / "log", "simgan.train", *train_words(synthetic, real, tmp_path / "run"), *words)
    assert ended.code == 2
    assert message in ended.output and len(ended.output.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_domains_of_different_sizes_are_refused() -> None:
    from simgan.tasks import TASKS, TaskName

    class Domain:
        def __init__(self, *shape: int) -> None:
            self.shape, self.directory = shape, Path("somewhere")

    for other in (Domain(1, 32, 16), Domain(1, 16, 32), Domain(3, 16, 16)):
        with pytest.raises(UserError, match="images of 1 × 16 × 16 in somewhere but of . × .*pack both alike"):
            TASKS[TaskName.digits].check(Domain(1, 16, 16), other)  # type: ignore[arg-type]


def test_the_defaults_pass_their_own_checks() -> None:
    RefinerTrainConfig(synthetic="a", real="b").check()
