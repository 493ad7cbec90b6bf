"""The label command: every method, what it refuses, and that hidden labels stay hidden."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.data.label_table import LabelTable, read_table
from cluster_jobs.data.shards import Shards
from selfsup.encoders.loading import weights_digest
from selfsup.label import main
from selfsup.labelling.classifier import load_classifier, predict
from tests.processes import launch
from tests.selfsup.toy_shards import make_shards

CLASSES = ("cat", "dog", "éléphant blanc")
COUNTS = (50, 1, 39)


def draw_labels(seed: int = 0) -> list[int]:
    return np.random.RandomState(seed).choice(3, sum(COUNTS), p=[0.6, 0.3, 0.1]).tolist()


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    files = [f"{CLASSES[label]}/né {index:03d}.png" for index, label in enumerate(draw_labels())]
    return make_shards(tmp_path / "data", COUNTS, draw_labels(), files=files)


def label(shards: Shards, out: Path, method: str, *words: str) -> LabelTable:
    assert main([f"data={shards.directory}", f"method={method}", f"out={out}", *words]) == 0
    return read_table(out)


def refusal(capsys: pytest.CaptureFixture, shards: Shards, *words: str) -> str:
    """The one line that the command prints when it refuses."""
    capsys.readouterr()
    out = Path(shards.directory).parent / "refused.parquet"
    assert main([f"data={shards.directory}", f"out={out}", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and not out.exists(), lines
    return lines[0]


def test_reveal_holds_the_budget_and_nothing_else(shards: Shards, tmp_path: Path) -> None:
    table = label(shards, tmp_path / "budget.parquet", "reveal", "fraction=0.1")
    truth = dict(zip(shards.keys(), draw_labels(), strict=True))
    assert [truth[key] for key in table.keys] == table.labels.tolist()
    counts = np.bincount(draw_labels())
    assert np.bincount(table.labels).tolist() == [-(-count // 10) for count in counts.tolist()]
    assert set(table.origin) == {"true"} and (table.confidence == 1).all()
    assert table.keys == sorted(table.keys) and table.classes == list(CLASSES)
    assert table.metadata["fingerprint"] == shards.fingerprint and table.metadata["method"] == "reveal"


def test_reveal_with_fraction_one_holds_every_label(shards: Shards, tmp_path: Path) -> None:
    table = label(shards, tmp_path / "all.parquet", "reveal", "fraction=1")
    assert table.labels.tolist() == draw_labels() and table.keys == shards.keys()


def test_reveal_draws_from_the_samples_that_have_labels(tmp_path: Path) -> None:
    labels = [None if index % 3 else value for index, value in enumerate(draw_labels())]
    partly = make_shards(tmp_path / "partly", COUNTS, labels)
    table = label(partly, tmp_path / "all.parquet", "reveal", "fraction=1")
    assert table.keys == [partly.key(index) for index in range(0, sum(COUNTS), 3)]


def test_reveal_without_any_label_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bare = make_shards(tmp_path / "bare", (3,), [None] * 3)
    assert "no sample has a label" in refusal(capsys, bare, "method=reveal")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=reveal", "fraction=0"], "fraction=0.0: expected a share"),
        (["method=reveal", "fraction=1.5"], "fraction=1.5: expected a share"),
        (["method=guess"], "method=guess on the command line: expected one of reveal, import, single"),
        (["method=kmeans"], "method=kmeans needs encoder=PATH"),
        (["method=import"], "method=import needs file=PATH"),
        (["method=classifier"], "method=classifier needs labels=PATH"),
        (["method=classifier", "labels=/nowhere/né = 'x'.parquet"], "labels=\"/nowhere/né = 'x'.parquet\": expected a"),
        (["method=single", "truth=/nowhere/truth.parquet"], "'/nowhere/truth.parquet': no such file"),
        (["method=random", "clusters=-1"], "clusters=-1: expected"),
        (["method=single", "fracton=0.1"], "unknown key 'fracton'"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_line(
    shards: Shards, capsys: pytest.CaptureFixture, words: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, shards, *words)


def test_validate_needs_no_input_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "later" / "budget.parquet"
    words = [
        f"data={tmp_path}/later/train",
        f"out={out}",
        "method=classifier",
        "labels=/later.parquet",
        "validate=true",
    ]
    assert main(words) == 0
    assert "method: classifier" in capsys.readouterr().out and not list(tmp_path.iterdir())


def write_csv(path: Path, lines: Sequence[str], encoding: str = "utf-8") -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return f"file={path}"


@pytest.mark.parametrize("header", [[], ["file,label"], ["image name,class", ""]])
def test_import_takes_keys_and_file_names_and_class_names_and_numbers(
    shards: Shards, tmp_path: Path, header: list[str]
) -> None:
    lines = [
        f"{shards.key(60)},dog",
        f"{shards.key(3)},2",
        f"{CLASSES[draw_labels()[50]]}/né 050.png,éléphant blanc",
        "né 007.png , cat",
        f"{shards.key(3)},éléphant blanc",
    ]
    file = write_csv(tmp_path / "labels, mine = 'x'.csv", header + lines, "utf-8-sig")
    table = label(shards, tmp_path / "budget.parquet", "import", file)
    assert table.keys == [shards.key(index) for index in (3, 7, 50, 60)]
    assert table.labels.tolist() == [2, 0, 2, 1] and set(table.origin) == {"true"}
    assert table.metadata["fraction"] == pytest.approx(4 / 90)


def test_import_reads_accents_however_they_are_composed(shards: Shards, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "labels.csv", ["ne\u0301 007.png,e\u0301le\u0301phant blanc"])
    assert label(shards, tmp_path / "budget.parquet", "import", file).labels.tolist() == [2]


def test_import_without_known_classes_takes_those_of_the_file(tmp_path: Path) -> None:
    bare = make_shards(tmp_path / "bare", (4,), [None] * 4, classes=())
    file = write_csv(tmp_path / "names.csv", [f"{bare.key(2)},zebra", f"{bare.key(0)},ant", f"{bare.key(1)},zebra"])
    table = label(bare, tmp_path / "names.parquet", "import", file)
    assert table.classes == ["ant", "zebra"] and table.labels.tolist() == [0, 1, 1]
    file = write_csv(tmp_path / "numbers.csv", [f"{bare.key(2)},2", f"{bare.key(0)},0"])
    table = label(bare, tmp_path / "numbers.parquet", "import", file)
    assert table.classes == ["0", "1", "2"] and table.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["{0},cat", "nobody.png,cat"], "line 2: no sample is called 'nobody.png'"),
        (["000009/00000001,cat"], "line 1: no sample is called '000009/00000001'"),
        (["{0},cat", "", "{1},catt"], "line 3: unknown class 'catt'; did you mean 'cat'?"),
        (["{0},3"], "line 1: unknown class '3'; expected one of cat, dog, éléphant blanc or a number below 3"),
        (
            ["file,label", "{0},cat", "{1},dog", "{0},dog"],
            "line 4: '000000/00000000' is 'dog' here and 'cat' in line 2",
        ),
        (["{0},cat", "né 000.png,dog"], "line 2: 'né 000.png' is 'dog' here and 'cat' in line 1"),
        (["{0},cat,extra"], "line 1: 3 columns, expected name,class"),
        (["{0}"], "line 1: 1 columns, expected name,class"),
        ([], "no labels"),
        (["file,label"], "no labels"),
        (['"{0},cat'], "no CSV in UTF-8"),
    ],
)
def test_a_csv_that_does_not_fit_is_one_line_with_its_number(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture, lines: list[str], expected: str
) -> None:
    filled = [line.format(shards.key(0), shards.key(1)) for line in lines]
    assert expected in refusal(capsys, shards, "method=import", write_csv(tmp_path / "labels.csv", filled))


def test_a_file_name_that_two_samples_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    twice = make_shards(tmp_path / "twice", (3,), [0, 1, 0], files=["cat/1.png", "dog/1.png", "2.png"])
    file = write_csv(tmp_path / "labels.csv", ["1.png,cat"])
    assert "line 1: several samples are called '1.png'" in refusal(capsys, twice, "method=import", file)
    file = write_csv(tmp_path / "labels.csv", ["dog/1.png,dog", "2.png,cat"])
    assert label(twice, tmp_path / "budget.parquet", "import", file).keys == [twice.key(1), twice.key(2)]


def test_single_gives_every_sample_the_same_label(shards: Shards, tmp_path: Path) -> None:
    table = label(shards, tmp_path / "single.parquet", "single")
    assert table.keys == shards.keys() and set(table.labels) == {0} and set(table.origin) == {"single"}


def test_random_labels_are_keyed_by_seed_and_sample(shards: Shards, tmp_path: Path) -> None:
    table = label(shards, tmp_path / "random.parquet", "random", "seed=1")
    other = label(shards, tmp_path / "other.parquet", "random", "seed=2")
    wide = label(shards, tmp_path / "wide.parquet", "random", "seed=1", "clusters=40")
    assert set(table.labels) == {0, 1, 2} and set(table.origin) == {"random"}
    assert (table.labels == other.labels).mean() < 0.6 and wide.labels.max() > 30
    larger = make_shards(tmp_path / "larger", (50, 1, 39, 5), [*draw_labels(), *[0] * 5])
    again = label(larger, tmp_path / "larger.parquet", "random", "seed=1")
    assert again.labels[: len(table)].tolist() == table.labels.tolist()


def test_the_same_command_again_keeps_the_table_and_another_is_refused(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "budget.parquet"
    label(shards, out, "reveal", "fraction=0.1")
    before = out.read_bytes(), out.stat().st_mtime_ns
    label(shards, out, "reveal", "fraction=0.1")
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before
    for words, difference in ((["fraction=0.2"], "fraction: 0.1 -> 0.2"), (["seed=1"], "seed: 0 -> 1")):
        capsys.readouterr()
        assert main([f"data={shards.directory}", f"out={out}", "method=reveal", *words]) == 2
        assert difference in capsys.readouterr().err
    assert out.read_bytes() == before[0]


def test_a_changed_input_file_under_the_same_name_is_refused(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, out = tmp_path / "labels.csv", tmp_path / "budget.parquet"
    label(shards, out, "import", write_csv(file, [f"{shards.key(0)},cat"]))
    write_csv(file, [f"{shards.key(0)},dog"])
    assert main([f"data={shards.directory}", f"out={out}", "method=import", f"file={file}"]) == 2
    assert "another configuration (file: " in capsys.readouterr().err


@pytest.fixture
def pixels(tmp_path: Path) -> str:
    """An encoder of the user's own: the pixels themselves, as TorchScript."""
    path = tmp_path / "pixels, mine = 'x'.pt"
    torch.jit.trace(torch.nn.Flatten(), torch.zeros(2, 1, 8, 8)).save(path)
    return f"encoder={path}"


def metrics_of(out: Path) -> dict:
    return json.loads(out.with_suffix(".metrics.json").read_text())


def test_kmeans_finds_the_shades_and_is_scored_against_the_truth(shards: Shards, tmp_path: Path, pixels: str) -> None:
    label(shards, tmp_path / "truth.parquet", "reveal", "fraction=1")
    out = tmp_path / "clusters.parquet"
    words = (pixels, "clusters=3", "space=raw")
    table = label(shards, out, "kmeans", *words, f"truth={tmp_path}/truth.parquet")
    assert table.keys == shards.keys() and set(table.origin) == {"cluster"}
    assert len(set(zip(table.labels.tolist(), draw_labels(), strict=True))) == 3  # one cluster for each shade
    assert 0 < table.confidence.min() < table.confidence.max() <= 1
    scores = metrics_of(out)
    assert scores["nmi"] == pytest.approx(1) and scores["ari"] == scores["matched accuracy"] == 1
    assert scores["empty classes"] == 0 and 0.5 < scores["size entropy"] < 1
    section = json.loads((tmp_path / "report" / "clusters.json").read_text())
    assert [(tmp_path / "report" / picture["file"]).stat().st_size > 100 for picture in section["pictures"]] == [True]
    assert ["nmi", "1.0000"] in section["table"]["rows"]


def test_a_cluster_more_than_samples_is_refused(shards: Shards, pixels: str, capsys: pytest.CaptureFixture) -> None:
    assert "clusters=91: expected 1 to 90" in refusal(capsys, shards, "method=kmeans", "clusters=91", pixels)


TINY = ("classifier.steps=30", "classifier.width=4", "classifier.batch=16", "classifier.rotation_batch=4")


def test_classifier_covers_every_key_and_keeps_the_budget(shards: Shards, tmp_path: Path) -> None:
    budget = label(shards, tmp_path / "budget.parquet", "reveal", "fraction=0.2")
    label(shards, tmp_path / "truth.parquet", "reveal", "fraction=1")
    budget_words = (f"labels={tmp_path}/budget.parquet", *TINY)
    out = tmp_path / "inferred.parquet"
    table = label(shards, out, "classifier", *budget_words, "soft=true", f"truth={tmp_path}/truth.parquet")
    assert table.keys == shards.keys() and table.classes == budget.classes
    given = np.isin(table.keys, budget.keys)
    assert table.labels[given].tolist() == budget.labels.tolist() and (table.confidence[given] == 1).all()
    assert set(table.origin[given]) == {"true"} and set(table.origin[~given]) == {"inferred"}
    assert table.probabilities is not None
    np.testing.assert_allclose(table.probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(table.probabilities.argmax(axis=1), table.labels)
    assert np.array_equal(table.probabilities.max(axis=1), table.confidence)
    right = (table.labels == np.array(draw_labels()))[~given]
    scores = metrics_of(out)
    assert scores["accuracy"] == pytest.approx(right.mean()) and scores["scored samples"] == right.size
    assert right.mean() > 0.8  # the shade gives the class away
    cats = np.array(draw_labels())[~given] == 0
    assert scores["accuracy of cat"] == pytest.approx(right[cats].mean())
    pictures = json.loads((tmp_path / "report" / "inferred.json").read_text())["pictures"]
    assert [picture["file"].removeprefix("inferred_") for picture in pictures] == [
        "examples.png",
        "confidence.png",
        "confusion.png",
    ]


def test_the_classifier_is_kept_beside_the_table_that_it_made(shards: Shards, tmp_path: Path) -> None:
    budget = label(shards, tmp_path / "budget.parquet", "reveal", "fraction=0.2")
    table = label(
        shards, tmp_path / "deep" / "inferred.parquet", "classifier", f"labels={tmp_path}/budget.parquet", *TINY
    )
    assert (tmp_path / "deep" / "inferred.classifier.safetensors").is_file()
    classifier = load_classifier(tmp_path / "deep" / "inferred.parquet", "cpu")
    images = torch.from_numpy(np.stack([shards.image(index) for index in range(len(shards))]))
    inferred = table.origin == "inferred"
    found = predict(classifier, [images], "cpu").argmax(1).numpy()
    assert found[inferred].tolist() == table.labels[inferred].tolist()
    assert classifier.facts["class_names"] == list(CLASSES)
    assert classifier.facts["data_fingerprint"] == shards.fingerprint
    assert classifier.facts["budget"] == {"method": "reveal", "fraction": 0.2, "seed": 0, "rows": len(budget)}


def test_labels_to_learn_from_must_be_true_ones(shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    label(shards, tmp_path / "random.parquet", "random")
    line = refusal(capsys, shards, "method=classifier", f"labels={tmp_path}/random.parquet", *TINY)
    assert "holds labels that are not true ones" in line


def test_a_table_of_another_data_set_is_refused(shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = make_shards(tmp_path / "other", (3, 2), [0, 1, 2, 0, 1])
    label(other, tmp_path / "other.parquet", "reveal", "fraction=1")
    for words in (["method=classifier", f"labels={tmp_path}/other.parquet", *TINY], ["method=single"]):
        assert "made for other data" in refusal(capsys, shards, *words, f"truth={tmp_path}/other.parquet")


@pytest.mark.parametrize("method", ["classifier", "kmeans"])
def test_hidden_labels_and_the_truth_to_score_against_change_no_byte(
    tmp_path: Path, shards: Shards, pixels: str, method: str
) -> None:
    """Two data sets that differ in every label outside the budget; the second is scored besides."""
    budget = label(shards, tmp_path / "budget.parquet", "reveal", "fraction=0.2")
    known = dict(zip(budget.keys, budget.labels.tolist(), strict=True))
    permuted = [known.get(key, 2 - value) for key, value in zip(shards.keys(), draw_labels(), strict=True)]
    images = np.stack([shards.image(index) for index in range(len(shards))])
    files = [f"{CLASSES[label]}/né {index:03d}.png" for index, label in enumerate(draw_labels())]
    other = make_shards(tmp_path / "permuted", COUNTS, permuted, files=files, images=images)
    label(other, tmp_path / "truth.parquet", "reveal", "fraction=1")
    words = {"classifier": (f"labels={tmp_path}/budget.parquet", *TINY), "kmeans": (pixels, "clusters=4")}[method]
    label(shards, tmp_path / "first.parquet", method, *words)
    label(other, tmp_path / "second.parquet", method, *words, f"truth={tmp_path}/truth.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    if method == "classifier":
        kept = [load_classifier(tmp_path / f"{name}.parquet", "cpu") for name in ("first", "second")]
        assert weights_digest(kept[0]) == weights_digest(kept[1]) and kept[0].facts == kept[1].facts
    assert metrics_of(tmp_path / "first.parquet").keys() < metrics_of(tmp_path / "second.parquet").keys()


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["classifier", "kmeans"])
def test_two_processes_write_the_table_of_one(shards: Shards, tmp_path: Path, pixels: str, method: str) -> None:
    label(shards, tmp_path / "budget.parquet", "reveal", "fraction=0.2")
    words = {"classifier": (f"labels={tmp_path}/budget.parquet", *TINY), "kmeans": (pixels, "clusters=4")}[method]
    arguments = (f"data={shards.directory}", f"method={method}", f"out={tmp_path}/two.parquet", *words, "threads=1")
    ended = launch("selfsup.label", *arguments, processes=2, timeout=300)
    assert ended.code == 0, ended.output
    label(shards, tmp_path / "one.parquet", method, *words, "threads=1")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
