"""The page in a real browser, and scores against the numbers of the paper and a naive sum."""

import base64
import io
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.report import render
from cluster_jobs.turing import main
from cluster_jobs.turing_test.score import Confusion, pooled
from tests.browser import Browser, chromium
from tests.cluster_jobs.tiny import tiny_images, write_tiny_shards


@pytest.fixture
def domains(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve real images and nine others."""
    write_tiny_shards(tmp_path / "real", (7, 5))
    images = 255 - tiny_images(9)
    write_shard(tmp_path / "fake", 0, [Sample(f"{i:08d}", encode_png(image)) for i, image in enumerate(images)])
    finish_index(tmp_path / "fake", 1, classes=[], size=8, mode="L")
    return tmp_path / "real", tmp_path / "fake"


def make(domains: tuple[Path, Path], out: Path, *words: str) -> int:
    return main([f"real={domains[0]}", f"fake={domains[1]}", f"out={out}", *words])


def shown_by(page: str) -> dict:
    """What the page knows of the test."""
    found = re.search(r'id="test">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def answers_file(path: Path, key: dict, subject: str, right: int, **changes: object) -> Path:
    """What somebody saved who was right about the first ``right`` images."""
    other = {"real": "fake", "fake": "real"}
    rows = [
        {"id": id, "answer": truth if place < right else other[truth], "seconds": 1.0}
        for place, (id, truth) in enumerate(key["truth"].items())
    ]
    path.write_text(json.dumps({"format": 1, "test": key["test"], "subject": subject, "answers": rows} | changes))
    return path


def test_a_test_is_one_file_that_fetches_nothing_and_says_no_truth(domains: tuple[Path, Path], tmp_path: Path) -> None:
    assert make(domains, tmp_path / "out", "count=4", "examples=1", "title=Clothes & more") == 0
    page = (tmp_path / "out" / "turing.html").read_text()
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    assert not re.search(r"""(src|href)=["']?\w+:|url\(|@import|{{""", page) and "Clothes &amp; more" in page
    shown = shown_by(page)
    assert [image["id"] for image in shown["images"]] == list(key["truth"])
    assert all(set(image) == {"id", "source"} for image in shown["images"])
    assert sorted(key["truth"].values()) == ["fake"] * 4 + ["real"] * 4
    assert [len(shown["examples"][kind]) for kind in ("real", "fake")] == [1, 1]
    kinds = list(key["truth"].values())
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)


def test_the_pictures_are_those_of_the_shards_and_none_is_shown_twice(
    domains: tuple[Path, Path], tmp_path: Path
) -> None:
    make(domains, tmp_path / "out", "count=7", "examples=2")
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    page = (tmp_path / "out" / "turing.html").read_text()
    shown = shown_by(page)
    assert len({(key["truth"][id], sample) for id, sample in key["samples"].items()}) == 14
    for image in shown["images"]:
        shards = Shards(domains[key["truth"][image["id"]] == "fake"])
        index = next(i for i in range(len(shards)) if shards.key(i) == key["samples"][image["id"]])
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["source"].partition(",")[2]))))
        expected = shards.image(index)
        assert np.array_equal(decoded if decoded.ndim == 2 else decoded.transpose(2, 0, 1), expected.squeeze())


def test_the_same_command_writes_the_same_bytes_and_another_test_is_not_overwritten(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    make(domains, out, "count=3")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert make(domains, out, "count=3") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert make(domains, out, "count=3", "seed=1") == 2
    assert "holds another test, whose key would be lost" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["real=R", "fake=F"], "missing out=… (to make a test), or score=…"),
        (["real=R", "fake=F", "out=O", "score=S"], "score=S: expected no real=, fake=, out= beside it"),
        (["real=R", "fake=F", "out=O", "count=0"], "count=0: expected an integer of at least 1"),
        (["real=R", "fake=F", "out=O", "count=9", "examples=1"], "fake=F: 9 images, expected at least count + ex"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str],
    said: str,
    domains: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    domains[0].rename("R")
    domains[1].rename("F")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not Path("O").exists()


def test_p_values_are_those_of_the_paper_and_of_a_naive_sum() -> None:
    # SimGAN, section 3.2: 517 of 1,000 right for refined images, 162 of 200 for simulated ones
    refined = Confusion({"real": {"real": 224, "fake": 276}, "fake": {"real": 207, "fake": 293}})
    assert (refined.correct, refined.total) == (517, 1000)
    assert refined.p_value() == pytest.approx(0.148, abs=5e-4)
    simulated = Confusion({"real": {"real": 80, "fake": 20}, "fake": {"real": 18, "fake": 82}})
    assert simulated.p_value() == pytest.approx(9.9e-20, rel=5e-3)
    for one in (refined, simulated):
        naive = sum(math.comb(one.total, k) for k in range(one.correct, one.total + 1)) / 2**one.total
        assert one.p_value() == pytest.approx(naive, rel=1e-9)
    low, high = refined.interval()  # as many right, or as few, have a chance of 2.5 % at the ends
    tail = sum(math.comb(1000, k) * low**k * (1 - low) ** (1000 - k) for k in range(517, 1001))
    assert tail == pytest.approx(0.025, rel=1e-6) and high > 0.517
    assert pooled([refined, simulated]).counts["fake"] == {"real": 225, "fake": 375}


def test_answers_of_several_people_are_counted_apart_and_together(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    make(domains, out, "count=4")
    key = json.loads((out / "key.json").read_text())
    answers_file(out / "a.json", key, "Ada", 8)
    answers_file(out / "b.json", key, "", 5)
    capsys.readouterr()
    assert main([f"score={out}"]) == 0
    printed = capsys.readouterr().out
    assert "13 of 16 right (81.2%" in printed and "p = 0.0106" in printed  # (560 + 120 + 16 + 1) / 65536
    section = json.loads((out / "report" / "turing.json").read_text())
    rows = {row[0]: row[1:] for row in section["table"]["rows"]}
    assert rows["Ada"] == [4, 0, 0, 4, "100.0%", "0.00391"]
    expected = dict.fromkeys(("real real", "real fake", "fake real", "fake fake"), 0)
    for place, truth in enumerate(key["truth"].values()):
        answer = truth if place < 5 else {"real": "fake", "fake": "real"}[truth]
        expected[f"{truth} {answer}"] += 1
    assert rows["b"][:4] == list(expected.values()) and set(rows) == {"Ada", "b", "all"}


def test_answers_that_do_not_fit_are_refused_by_name(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    make(domains, out, "count=2")
    key = json.loads((out / "key.json").read_text())
    file = out / "answers.json"
    good = json.loads(answers_file(file, key, "A", 4).read_text())
    rows = good["answers"]
    damaged = {
        "{'": "unreadable (",
        "[" * 100_000: "unreadable (",
        "[]": "expected a JSON object",
        json.dumps(good | {"test": "0"}): f"answers to the test '0', but the key is of '{key['test']}'",
        json.dumps(good | {"answers": rows[:3]}): "1 of 4 images have no answer",
        json.dumps(good | {"answers": rows + rows[:1]}): f"two answers to image '{rows[0]['id']}'",
        json.dumps(good | {"answers": [rows[0] | {"id": "zz"}]}): "image 'zz', answer",
        json.dumps(good | {"answers": [rows[0] | {"answer": "maybe"}]}): "answer 'maybe': expected an image",
        json.dumps(good | {"answers": 3}): "expected answers as the test's page exports them",
    }
    for text, said in damaged.items():
        file.write_text(text)
        assert main([f"score={file}"]) == 2
        error = capsys.readouterr().err
        assert said in error and str(file) in error and error.count("\n") == 1
    assert not (out / "report").exists()
    file.write_text(json.dumps(good | {"answers": rows[:3]}))
    assert main([f"score={file}", "allow_incomplete=true"]) == 0
    assert "3 of 3 right" in capsys.readouterr().out
    answers_file(file, key, "A", 4)
    answers_file(out / "again.json", key, "A", 4)
    assert main([f"score={out}"]) == 2
    assert "the subject 'A' has answered in another file already" in capsys.readouterr().err


def test_names_of_subjects_are_shown_as_they_are_and_the_report_holds_them(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "mail"
    make(domains, out, "count=2")
    key = json.loads((out / "key.json").read_text())
    elsewhere.mkdir()
    files = [answers_file(elsewhere / f"{i}.json", key, name, 4) for i, name in enumerate(["all", "[/b] <i>"])]
    assert main([f"score={files[0]}"]) == 2
    assert "key.json: no such file; give the key.json" in capsys.readouterr().err
    assert main([f"score={files[0]},{files[1]}", f"key={out / 'key.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "[/b] <i>" in printed and "8 of 8 right" in printed
    assert [row[0] for row in json.loads((out / "report" / "turing.json").read_text())["table"]["rows"]] == [
        "all",
        "[/b] <i>",
        "all",
    ]
    report = render(tmp_path)
    assert "Visual Turing test" in report and "[/b] &lt;i&gt;" in report and "8 of 8 right" in report


def test_pictures_need_not_be_square_but_must_be_of_one_shape(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wide = tmp_path / "wide"
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 5, 9), dtype=np.uint8)
    write_shard(wide, 0, [Sample(f"{i:08d}", encode_png(image)) for i, image in enumerate(images)])
    finish_index(wide, 1, classes=[], size=(5, 9), mode="L")
    assert make((wide, wide), tmp_path / "out", "count=3") == 0
    shown = shown_by((tmp_path / "out" / "turing.html").read_text())
    assert shown["scale"] == 320 // 9
    sizes = {Image.open(io.BytesIO(base64.b64decode(i["source"].partition(",")[2]))).size for i in shown["images"]}
    assert sizes == {(9, 5)}
    assert make((domains[0], wide), tmp_path / "mixed", "count=3") == 2
    assert make((tmp_path / "later", wide), tmp_path / "mixed", "validate=true") == 0  # a pipeline's check: no data yet
    assert "1 × 8 × 8 and 1 × 5 × 9 (channels × height × width), expected the same" in capsys.readouterr().err


def answer_of(browser: Browser, truths: dict[str, str]) -> str:
    """The truth of the image that the page shows, found by its picture as nobody could who has no key."""
    return truths[browser.run("document.getElementById('image').src")]


@pytest.mark.slow
def test_in_a_browser_answers_are_given_undone_remembered_saved_and_scored(
    domains: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    make(domains, out, "count=4", "examples=2")
    key = json.loads((out / "key.json").read_text())
    shown = shown_by((out / "turing.html").read_text())
    truths = {image["source"]: key["truth"][image["id"]] for image in shown["images"]}
    with chromium(tmp_path / "profile") as browser:
        browser.downloads(out)
        browser.resize(390, 844, mobile=True)
        browser.open((out / "turing.html").as_uri())
        assert browser.run("document.querySelectorAll('.examples img').length") == 4
        browser.run("document.getElementById('subject').value = 'Ada L.'")
        browser.click("start")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")  # fits a phone
        first = answer_of(browser, truths)
        browser.click({"real": "fake", "fake": "real"}[first])  # wrong, and taken back
        browser.press("u")
        assert answer_of(browser, truths) == first
        for place in range(3):
            if place == 1:
                browser.press(answer_of(browser, truths)[0])
            else:
                browser.click(answer_of(browser, truths))
        fourth = browser.run("document.getElementById('image').src")
        browser.reload()
        assert "3 of 8 judged" in browser.run("document.getElementById('start').textContent")
        assert browser.run("document.getElementById('subject').value") == "Ada L."
        browser.click("start")
        assert browser.run("document.getElementById('image').src") == fourth
        for _ in range(4):
            browser.click(answer_of(browser, truths))
        browser.press({"real": "f", "fake": "r"}[answer_of(browser, truths)])  # the last one wrong
        browser.click("save")
        saved = out / "answers-Ada_L_.json"
        deadline = time.monotonic() + 120
        while not saved.is_file():
            assert time.monotonic() < deadline, "the answers were not saved"
            time.sleep(0.1)
        assert browser.run("document.getElementById('text').value") == saved.read_text()
        browser.reload()
        browser.run("window.confirm = () => true")
        browser.click("afresh")
        assert browser.run("document.getElementById('count').textContent") == "Image 1 of 8"
    capsys.readouterr()
    assert main([f"score={saved}"]) == 0
    assert "7 of 8 right (87.5%" in capsys.readouterr().out
    assert all(row["seconds"] >= 0 for row in json.loads(saved.read_text())["answers"])
