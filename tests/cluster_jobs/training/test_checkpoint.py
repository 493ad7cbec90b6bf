import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cluster_jobs.core.errors import UserError
from cluster_jobs.training.checkpoint import CheckpointStore, load_entry, load_state, save_state


def same(one: Any, other: Any) -> bool:
    """Equal in structure, types, dtypes and every bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def stems(store: CheckpointStore) -> list[int]:
    return [int(path.stem) for path in store.paths()]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


STATE: dict[str, Any] = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7), "half": torch.ones(2).bfloat16()},
    "optimizer": {"state": {0: {"exp_avg": torch.rand(3), "step": torch.tensor(2.0)}, 1: {}}, "groups": [{"lr": 1e-4}]},
    "mixed": [1, -2.5, "tëxt", True, None, [], {}, [[torch.zeros(0, 4)]], math.inf, 2**60],
    "flags": torch.tensor([True, False]),
    "bytes": torch.arange(256, dtype=torch.uint8),
}


def test_a_nested_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_state(tmp_path / "x.safetensors", STATE, nimg=3)
    state, manifest = load_state(tmp_path / "x.safetensors")
    assert same(state, STATE)
    assert manifest["nimg"] == 3


def test_tensors_that_share_memory_or_are_strided_come_back(tmp_path: Path) -> None:
    base = torch.arange(48.0).reshape(2, 3, 2, 4)
    state = {
        "tied": base,
        "again": base,
        "view": base[:, 1],
        "channels_last": base.to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "needs_grad": torch.nn.Parameter(base.clone()),
    }
    save_state(tmp_path / "x.safetensors", state)
    assert same({**state, "needs_grad": base}, load_state(tmp_path / "x.safetensors")[0])


def test_an_optimizer_goes_on_as_if_nothing_happened(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.0, 0.9), weight_decay=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        optimizer.zero_grad()
        model(torch.full((1, 3), float(number))).square().sum().backward()
        optimizer.step()

    model, optimizer = make()
    for number in range(6):
        if number == 3:
            save_state(tmp_path / "x.safetensors", {"m": model.state_dict(), "o": optimizer.state_dict()})
        step(model, optimizer, number)
    resumed, resumed_optimizer = make()
    state, _ = load_state(tmp_path / "x.safetensors")
    resumed.load_state_dict(state["m"])
    resumed_optimizer.load_state_dict(state["o"])
    for number in range(3, 6):
        step(resumed, resumed_optimizer, number)
    assert same(dict(model.state_dict()), dict(resumed.state_dict()))


def test_a_part_without_tensors_is_read_alone(tmp_path: Path) -> None:
    save_state(tmp_path / "x.safetensors", {"module": {"w": torch.ones(2)}, "clusters": {"nimg": 64, "sha256": "ab"}})
    (tmp_path / "x.safetensors").write_bytes(b"not looked at")
    assert load_entry(tmp_path / "x.safetensors", "clusters") == {"nimg": 64, "sha256": "ab"}
    assert load_entry(tmp_path / "x.safetensors", "health") is None
    manifest = tmp_path / "x.json"
    manifest.write_text(manifest.read_text().replace("64", "65"))
    with pytest.raises(UserError, match="torn or changed manifest"):
        load_entry(tmp_path / "x.safetensors", "clusters")


def test_the_tensors_can_be_read_without_this_project(tmp_path: Path) -> None:
    save_state(tmp_path / "x.safetensors", STATE)
    assert torch.equal(load_file(tmp_path / "x.safetensors")["/model/weight"], STATE["model"]["weight"])


def test_an_object_that_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="/a: cannot store a <class 'object'>"):
        save_state(tmp_path / "x.safetensors", {"a": object()})
    assert names(tmp_path) == []


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    save_state(path, STATE)
    torn = path.with_suffix(suffix)
    torn.write_bytes(torn.read_bytes().rstrip(b"\n")[:kept])
    with pytest.raises(UserError, match=str(tmp_path / "x")):
        load_state(path)


def test_no_flipped_bit_of_a_checkpoint_passes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_state(path, STATE, nimg=640, score=1.25)
    passed = []
    for file in (path, path.with_suffix(".json")):
        whole = file.read_bytes().rstrip(b"\n")
        for place in range(0, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            try:
                state, manifest = load_state(path)
            except UserError:
                continue
            if not (same(state, STATE) and (manifest["nimg"], manifest["score"]) == (640, 1.25)):
                passed.append((file.name, place))
        file.write_bytes(whole)
    assert not passed
    assert same(load_state(path)[0], STATE)


def test_a_checkpoint_of_another_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    save_state(tmp_path / "x.safetensors", STATE)
    manifest = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(manifest | {"version": 9}))
    with pytest.raises(UserError, match="checkpoint version 9, this program reads version 1"):
        load_state(tmp_path / "x.safetensors")


def test_a_checkpoint_that_cannot_be_written_is_a_user_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot write the checkpoint .*x\.safetensors"):
        save_state(tmp_path / "x.safetensors", STATE)
    assert names(tmp_path) == ["x.safetensors"]


# --- the store


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=2, keep_best=1)


def fill(store: CheckpointStore, **scores: float | None) -> None:
    for name, score in scores.items():
        store.save({"at": int(name[1:])}, int(name[1:]), score=score)


def test_the_newest_and_the_best_are_kept(store: CheckpointStore) -> None:
    fill(store, n10=3.0, n20=1.0, n30=None, n40=2.0, n50=None)
    assert stems(store) == [20, 40, 50]
    assert store.best() == store.directory / "000000000020.safetensors"
    assert names(store.directory) == sorted(
        f"{n:012d}.{kind}" for n in (20, 40, 50) for kind in ("json", "safetensors")
    )
    fill(store, n60=0.5)
    assert stems(store) == [50, 60] and store.best() == store.directory / "000000000060.safetensors"


def test_retention_counts_last_and_best_apart(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=2)
    fill(store, n10=1.0, n20=2.0, n30=3.0, n40=4.0)
    assert stems(store) == [10, 20, 40]
    none = CheckpointStore(tmp_path / "none", keep_last=1, keep_best=0)
    fill(none, n10=1.0, n20=2.0)
    assert stems(none) == [20]


def test_an_empty_store_has_neither_latest_nor_best(store: CheckpointStore) -> None:
    assert store.latest() is None and store.best() is None and store.paths() == []


def test_images_seen_order_checkpoints_beyond_twelve_digits_of_habit(store: CheckpointStore) -> None:
    fill(store, n9=None, n10=None, n1000000=None)
    assert store.latest() == ({"at": 1_000_000}, 1_000_000)
    assert stems(store) == [10, 1_000_000]


def test_what_a_kill_left_behind_is_swept_away(store: CheckpointStore) -> None:
    fill(store, n10=None)
    (store.directory / ".000000000020.safetensors.123.tmp").write_bytes(b"half")
    (store.directory / "000000000020.safetensors").write_bytes(b"without a manifest")
    (store.directory / "000000000015.json").write_text("{}")
    store.sweep()
    assert names(store.directory) == [f"{10:012d}.{kind}" for kind in ("json", "safetensors")]


def break_newest(store: CheckpointStore, how: str) -> None:
    path = store.paths()[-1]
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif how == "torn manifest":
        manifest = path.with_suffix(".json")
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif how == "flipped manifest":
        manifest = path.with_suffix(".json")
        manifest.write_text(manifest.read_text().replace('"value": 20', '"value": 28'))
    elif how == "no manifest":
        path.with_suffix(".json").unlink()
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how", ["truncated", "flipped", "torn manifest", "flipped manifest", "no manifest", "no tensors"]
)
def test_after_a_torn_checkpoint_the_one_before_is_used_and_a_line_says_so(
    store: CheckpointStore, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, n10=None)
    store.save({"at": 20, "weight": torch.ones(3)}, 20)
    break_newest(store, how)
    assert store.latest() == ({"at": 10}, 10)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "000000000020" in told and "trying the checkpoint before it" in told


@pytest.mark.parametrize("how", ["truncated", "torn manifest"])
def test_a_torn_checkpoint_never_displaces_a_whole_one(tmp_path: Path, how: str) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=1)
    fill(store, n10=5.0)
    store.keep_last = 2
    store.save({"at": 20, "weight": torch.ones(3)}, 20, score=1.0)
    store.keep_last = 1
    break_newest(store, how)
    fill(store, n15=7.0)  # the resumed run, on another cadence
    assert store.latest() == ({"at": 15}, 15)
    assert stems(store) == [10, 15]
    assert store.best() == tmp_path / "000000000010.safetensors"


def test_protected_checkpoints_are_kept_besides(store: CheckpointStore) -> None:
    fill(store, n10=None)
    store.protected = frozenset({10, 30})
    fill(store, n20=None, n30=None, n40=None, n50=None, n60=None)
    assert stems(store) == [10, 30, 50, 60]
    store.protected = frozenset()
    fill(store, n70=None)
    assert stems(store) == [60, 70]


def test_a_rewound_run_goes_on_from_the_older_checkpoint_with_another_state_of_one_part(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=9)
    for nimg in (10, 20, 30):
        store.save(
            {"weight": torch.full((3,), nimg), "notes": {"went": 0, "at": nimg}}, nimg, score=1.0, means={"a": 1}
        )
    store.rewind(35, 10, "notes", {"went": 1, "words": ["a", None]})
    assert stems(store) == [10]
    expected = {"weight": torch.full((3,), 10), "notes": {"went": 1, "words": ["a", None]}}
    found = store.latest()
    assert found is not None and same(found[0], expected) and found[1] == 10
    facts = store.facts(10)
    assert (facts["score"], facts["means"], facts["abandoned_nimg"]) == (1.0, {"a": 1}, 25)
    store.save({"at": 20}, 20)
    assert store.facts(20)["abandoned_nimg"] == 25  # and so in every later checkpoint
    store.rewind(21, 20, "notes", {})
    assert store.facts(20)["abandoned_nimg"] == 26


def test_a_kill_while_a_rewind_deletes_what_it_gives_up_changes_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=9)
    fill(store, n10=3.0, n20=2.0, n30=1.0)
    left = {path: path.read_bytes() for path in tmp_path.iterdir() if "010" not in path.name}
    store.rewind(35, 10, "notes", {})
    for path, content in left.items():
        path.write_bytes(content)
    resumed = CheckpointStore(tmp_path, keep_last=9)
    found = resumed.latest()
    assert found is not None and found[1] == 10
    resumed.sweep(10)
    assert stems(resumed) == [10]
    fill(resumed, n20=None)
    assert resumed.latest() == ({"at": 20}, 20)


@pytest.mark.parametrize("how", ["truncated", "torn manifest", "no manifest"])
def test_a_run_is_not_rewound_to_a_torn_checkpoint(tmp_path: Path, how: str) -> None:
    store = CheckpointStore(tmp_path, keep_last=9)
    store.save({"at": 20, "weight": torch.ones(3)}, 20)
    break_newest(store, how)
    fill_later = CheckpointStore(tmp_path / "later")
    fill(fill_later, n30=None)
    for path in (tmp_path / "later").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(UserError, match="000000000020"):
        store.rewind(35, 20, "notes", {})
    assert store.latest() == ({"at": 30}, 30)


def test_nothing_unpickles_extracts_or_reaches_a_shell() -> None:
    unpickling = ("import pickle", "torch.load(", "allow_pickle=True")
    forbidden = (*unpickling, ".extractall(", ".extract(", "shell=True", "os.system(")
    for path in (Path(__file__).parents[3] / "cluster_jobs").rglob("*.py"):
        found = [word for word in forbidden if word in path.read_text()]
        assert not found, f"{path.name} holds {found}"


@pytest.mark.parametrize(("higher_is_better", "best"), [(False, 10), (True, 20)])
def test_the_best_checkpoint_is_that_of_the_lowest_or_the_highest_score(
    tmp_path: Path, higher_is_better: bool, best: int
) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=1)
    for nimg, score in ((10, 0.2), (20, 0.7), (30, 0.4)):
        store.save({"at": nimg}, nimg, score=score, higher_is_better=higher_is_better)
    assert store.best() == store.path(best) and store.paths() == [store.path(best), store.path(30)]


def test_an_accuracy_compares_with_the_error_that_older_runs_stored(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=1)
    store.save({"at": 10}, 10, score=0.05)  # 1 - accuracy, lower is better
    store.save({"at": 20}, 20, score=0.6, higher_is_better=True)
    store.save({"at": 30}, 30, score=0.9, higher_is_better=True)
    assert store.best() == store.path(10)
    store.save({"at": 40}, 40, score=0.97, higher_is_better=True)
    assert store.best() == store.path(40)
