"""Mixtures: counts against a naive computation, planted duplicates, classes by name, kills, workers and refusals."""

import json
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster_jobs import mix
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.mixing.duplicates import exact, near, signature, thumbnail
from cluster_jobs.mixing.shares import apportion, plan
from tests.cluster_jobs.tiny import files_below
from tests.processes import fork

CLASSES = ["a", "b", "c"]


def pictures(seed: int, count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, size, size)).astype(np.uint8)


def write(directory: Path, images: np.ndarray, labels: list[int], classes: list[str], pool: bool = True) -> str:
    samples = [
        Sample(f"{i:08d}", encode_png(image), label=label, annotation={"pose": i} if pool else None)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    half = len(samples) // 2
    write_shard(directory, 0, samples[:half])
    write_shard(directory, 1, samples[half:])
    finish_index(directory, 2, classes=classes, size=images.shape[-1], mode="L")
    if pool:
        (directory / "pool.json").write_text('{"made_by": "a test"}')
    return str(directory)


def write_budget(
    path: Path, shards: Shards, labels: dict[int, int], inferred: dict[int, int], metadata: dict[str, Any] | None = None
) -> str:
    rows = sorted(
        [*((i, label, "true") for i, label in labels.items()), *((i, c, "inferred") for i, c in inferred.items())]
    )
    columns = {
        "key": [shards.key(i) for i, *_ in rows],
        "label": pa.array([label for _, label, _ in rows], pa.int32()),
        "confidence": pa.array([1.0] * len(rows), pa.float32()),
        "origin": pa.array([origin for *_, origin in rows]).dictionary_encode(),
    }
    about = json.dumps({"classes": CLASSES, "fingerprint": shards.fingerprint, "fraction": 0.1, **(metadata or {})})
    pq.write_table(pa.table(columns).replace_schema_metadata({b"label_table": about}), path)
    return str(path)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """60 real images whose hidden labels are wrong on purpose, 15 of them with revealed labels; two pools."""
    labels = [i % 3 for i in range(60)]
    real = write(tmp_path / "real", pictures(0, 60), [2 - label for label in labels], CLASSES, pool=False)
    revealed, inferred = {i: labels[i] for i in range(15)}, {i: 0 for i in range(15, 60)}
    budget = write_budget(tmp_path / "budget.parquet", Shards(real), revealed, inferred)
    gan = write(tmp_path / "gan", pictures(1, 90), labels + labels[:30], CLASSES)
    refined = write(tmp_path / "refined", pictures(2, 60), labels, ["c", "b", "a"])
    return [
        f"real={real}",
        f"labels={budget}",
        f"gan={gan}",
        f"refined={refined}",
        "workers=0",
        f"out={tmp_path / 'mix'}",
    ]


SHARES = ["share_real=0.2", "share_gan=0.5", "share_refined=0.3"]


def origins(out: Path) -> list[tuple[str, str, str]]:
    """(source, key, class) of every sample, in order."""
    shards = Shards(out)
    found = [shards.annotation(i) or {} for i in range(len(shards))]
    return [
        (origin["source"], origin["key"], shards.classes[label])
        for origin, label in zip(found, shards.hidden_labels().tolist(), strict=True)
    ]


def test_counts_are_those_of_a_naive_computation_and_every_picture_is_its_origin(
    words: list[str], tmp_path: Path
) -> None:
    assert mix.main([*words, *SHARES, "count=47"]) == 0
    found = origins(tmp_path / "mix")
    by_class = Counter(label for *_, label in found)
    assert by_class == {"a": 16, "b": 16, "c": 15}
    cells = Counter((source, label) for source, _, label in found)
    # 0.2, 0.5 and 0.3 of 16: 3.2, 8, 4.8; of 15: 3, 7.5, 4.5, where the first of equal remainders is rounded up
    assert [[cells[source, label] for source in ("real", "gan", "refined")] for label in "abc"] == [[3, 8, 5]] * 2 + [
        [3, 8, 4]
    ]
    assert len(set(found)) == 47
    mixed = Shards(tmp_path / "mix")
    for index, (source, key, label) in enumerate(found):
        origin = Shards(tmp_path / source)
        place = origin.keys().index(key)
        assert np.array_equal(mixed.image(index), origin.image(place))
        names = {"real": CLASSES[place % 3], "gan": CLASSES[place % 3], "refined": "cba"[place % 3]}
        assert label == names[source]
        assert source != "real" or place < 15, "an image without a revealed label came in"
    pool = json.loads((tmp_path / "mix" / "pool.json").read_text())
    assert pool["counts"] == by_class and pool["counts_by_source"]["a"] == {"real": 3, "gan": 8, "refined": 5}
    assert pool["sources"]["real"]["label_table"]["fraction"] == 0.1
    assert pool["sources"]["gan"]["pool"] == {"made_by": "a test"}
    assert pool["sources"]["real"]["labels_left_out"] == 45


def test_a_larger_mixture_holds_the_smaller_one(words: list[str], tmp_path: Path) -> None:
    assert mix.main([*words, *SHARES, "count=30"]) == 0
    assert mix.main([*words, *SHARES, "count=45", f"out={tmp_path / 'larger'}"]) == 0
    assert set(origins(tmp_path / "mix")) < set(origins(tmp_path / "larger"))


def test_planted_duplicates_are_dropped_and_the_real_one_stays(words: list[str], tmp_path: Path) -> None:
    images, labels = pictures(3, 30), [i % 3 for i in range(30)]
    real = Shards(tmp_path / "real")
    images[0] = real.image(1)  # equal, of another class
    images[3] = np.clip(real.image(0).astype(int) + 1, 0, 255)  # near, of its class
    images[4] = np.clip(real.image(0).astype(int) - 1, 0, 255)  # near, of another class: stays
    images[7] = images[10]  # equal within the source
    gan = write(tmp_path / "planted", images, labels, CLASSES)
    assert mix.main([*words, f"gan={gan}", "share_real=0.4", "share_gan=0.6", "count=24"]) == 0
    pool = json.loads((tmp_path / "mix" / "pool.json").read_text())
    assert pool["dropped"]["gan"] == {"exact": {"real": 1, "gan": 1}, "near": {"real": 1}}
    assert pool["dropped"]["real"] == {"exact": {}, "near": {}}
    assert {label: row["gan"] for label, row in pool["available"].items()} == {"a": 8, "b": 9, "c": 10}
    taken = {key for source, key, _ in origins(tmp_path / "mix") if source == "gan"}
    assert not taken & {Shards(gan).key(place) for place in (0, 3, 10)}


def test_near_finds_what_a_comparison_of_all_pairs_finds() -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (40, 64))
    thumbnails = np.clip(base[random.integers(0, 40, 200)] + random.integers(-4, 5, (200, 64)), 0, 255).astype(np.uint8)
    for distance in (0, 1.5, 3, 200):
        kept: list[int] = []
        for number in range(200):
            gaps = [np.abs(thumbnails[number].astype(int) - thumbnails[other].astype(int)).mean() for other in kept]
            kept += [] if gaps and min(gaps) <= distance else [number]
        assert np.flatnonzero(near(thumbnails, distance) == np.arange(200)).tolist() == kept
    assert (near(thumbnails, -1) == np.arange(200)).all()


def test_thumbnails_differ_no_more_than_pixels_do() -> None:
    image = pictures(0, 1, size=32)[0]
    noisy = np.clip(image.astype(int) + np.random.default_rng(1).integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    pixels = np.abs(image.astype(int) - noisy.astype(int)).mean()
    assert 0 < np.abs(thumbnail(image).astype(int) - thumbnail(noisy).astype(int)).mean() <= pixels + 1
    assert thumbnail(image)[0] == round(image[0, :4, :4].mean())
    assert thumbnail(np.full((3, 35, 55), 7, np.uint8)).tolist() == [7] * 192
    first, second = signature(image), signature(noisy)
    hashes = np.frombuffer(first[0] + second[0] + first[0], np.uint8).reshape(3, 16)
    assert exact(hashes).tolist() == [0, 1, 0]


def test_the_largest_remainders_are_rounded_up() -> None:
    assert apportion(10, [Fraction(1)] * 3) == [4, 3, 3]
    assert apportion(7, [Fraction("0.55"), Fraction("0.35"), Fraction("0.1")]) == [4, 2, 1]  # 3.85, 2.45, 0.7
    wanted = plan(20, [Fraction("0.5"), Fraction("0.5")], np.array([[2, 100], [100, 100]]), fill=True)
    assert wanted.tolist() == [[2, 8], [5, 5]]


def test_real_images_are_repeated_equally_often_up_to_the_bound(words: list[str], tmp_path: Path) -> None:
    shares = ["share_real=0.5", "share_gan=0.5", "count=66"]  # 11 real ones of each class, of which there are 5
    assert mix.main([*words, *shares, "repeat=2"]) == 2
    assert mix.main([*words, *shares, "repeat=3"]) == 0
    times = Counter(key for source, key, _ in origins(tmp_path / "mix") if source == "real")
    assert len(times) == 15 and sorted(times.values()) == [2] * 12 + [3] * 3
    assert json.loads((tmp_path / "mix" / "pool.json").read_text())["repeated"] == 18


def test_what_a_source_lacks_comes_from_the_others_if_that_is_asked_for(words: list[str], tmp_path: Path) -> None:
    gan = write(tmp_path / "lacking", pictures(5, 40), [i % 2 for i in range(40)], CLASSES)  # no c
    shares = [f"gan={gan}", "share_gan=0.5", "share_refined=0.5", "count=30"]
    assert mix.main([*words, *shares]) == 2
    assert mix.main([*words, *shares, "fill=true"]) == 0
    cells = Counter((source, label) for source, _, label in origins(tmp_path / "mix"))
    assert cells == {(s, c): 5 for s in ("gan", "refined") for c in "ab"} | {("refined", "c"): 10}


def test_hidden_labels_of_real_images_have_no_part(words: list[str], tmp_path: Path) -> None:
    assert mix.main([*words, *SHARES, "count=30"]) == 0
    labels = tmp_path / "real" / "labels.bin"
    labels.write_bytes(np.random.default_rng(0).permutation(np.fromfile(labels, "<i4")).tobytes())
    assert mix.main([*words, *SHARES, "count=30", f"out={tmp_path / 'again'}"]) == 0
    assert files_below(tmp_path / "mix") == files_below(tmp_path / "again")


@pytest.mark.cluster
def test_workers_and_kills_do_not_show(words: list[str], tmp_path: Path) -> None:
    shares = ["share_real=0.5", "share_gan=0.5", "count=2400", "repeat=1000", "near=-1"]
    many = write(tmp_path / "many", pictures(6, 1500), [i % 3 for i in range(1500)], CLASSES)
    words = [*words, f"gan={many}", *shares]
    assert mix.main([*words, f"out={tmp_path / 'whole'}"]) == 0
    assert mix.main([*words, "workers=2", f"out={tmp_path / 'two'}"]) == 0
    for file in (".signatures/real-*.npz", ".signatures/gan-*.npz", "pool.json", "000000.tar", "000001.tar"):
        env = {"KILL_AT": f"{tmp_path}/mix/{file}"}
        killed = fork(tmp_path / "log", "tests.killed", "cluster_jobs.mix", *words, env=env)
        assert killed.code == -signal.SIGKILL, (file, killed.output)
    assert mix.main(words) == 0
    whole = files_below(tmp_path / "whole")
    assert (
        whole
        == files_below(tmp_path / "two")
        == {name: content for name, content in files_below(tmp_path / "mix").items() if not name.endswith(".tmp")}
    )


def test_the_same_command_finds_its_pool_and_another_one_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mix.main([*words, *SHARES, "count=30"]) == 0
    before = files_below(tmp_path / "mix")
    assert mix.main([*words, *SHARES, "count=30"]) == 0
    assert files_below(tmp_path / "mix") == before
    assert "finished" in capsys.readouterr().out
    assert mix.main([*words, *SHARES, "count=30", "seed=1"]) == 2
    assert "seed: 0 -> 1" in capsys.readouterr().err
    assert files_below(tmp_path / "mix") == before


def test_what_a_mixture_left_that_was_killed_while_it_began_is_no_hindrance(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / ".pool.json.123.tmp").write_text("{")
    assert mix.main([*words, *SHARES, "count=30"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["share_real=0.5", "share_gan=0.4"], "sum to 0.9"),
        (["share_gan=1", "near=inf"], "near=inf: expected a number of at least -1"),
        (["share_real=1.5", "share_gan=-0.5"], "from 0 to 1"),
        (["share_gan=1", "gan="], "share_gan=1 needs gan="),
        (["share_real=1", "labels="], "needs labels="),
        (["share_gan=1", "gan={tmp}/real"], "holds no pool.json"),
        (["share_gan=1", "count=2000"], "different images of class 'a'"),
        (["share_real=1", "labels={tmp}/none.parquet"], "no such file"),
        (["share_real=1", "real={tmp}/gan"], "made for other data"),
        (["share_gan=0.5", "share_refined=0.5", "refined={tmp}/large"], "expected equal ones"),
        (["share_gan=0.5", "share_refined=0.5", "refined={tmp}/strange"], "none of its classes (x, y, …)"),
    ],
)
def test_wrong_input_is_refused_in_one_line_and_nothing_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    write(tmp_path / "large", pictures(7, 6, size=16), [0, 1, 2] * 2, CLASSES)
    write(tmp_path / "strange", pictures(8, 6), [0, 1] * 3, ["x", "y"])
    assert mix.main([*words, "count=30", *(word.replace("{tmp}", str(tmp_path)) for word in more)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list((tmp_path / "mix").glob("*.tar")) and not (tmp_path / "mix" / "index.json").exists()
