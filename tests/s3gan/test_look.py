import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster_jobs.core.files import read_json, write_json
from cluster_jobs.data.shards import Shards
from cluster_jobs.report import render
from s3gan import look
from s3gan.inference.loading import load_generator
from s3gan.inference.sampling import draw_noise, make_images, plan_labels
from tests.processes import fork, fork_ranks
from tests.s3gan.toy_run import make_run, recluster, train_further
from tests.selfsup.toy_shards import make_shards

NAMES = ["cat", "dog", "éléphant blanc"]
SMALL = ["threads=1", "samples=3", "count=30", "thresholds=0.5,1"]
ALONE = ["class_grid", "film", "interpolation_classes", "interpolation_noise", "truncation"]
BESIDE = ["diversity", "neighbours", "spectrum"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run of two checkpoints whose standing statistics are computed already."""
    run = make_run(tmp_path_factory.mktemp("template"), NAMES)
    load_generator(run)
    train_further(run, 1, 3, 200)
    load_generator(run)
    return run


@pytest.fixture
def run(tmp_path, template):
    return Path(shutil.copytree(template, tmp_path / "run"))


def pictures(count, seed, mode=1):
    return np.random.default_rng(seed).integers(0, 256, (count, mode, 32, 32)).astype(np.uint8)


def real(directory, images, run=None):
    """Real images in `directory`/train; where a run is given, it was trained on them, with labels 0, 1, 2, 0, 1, …"""
    labels = np.arange(len(images)) % 3
    shards = make_shards(directory / "train", [len(images)], [None] * len(images), NAMES, images=images)
    if run is not None:
        write_json(run / "network.json", read_json(run / "network.json") | {"data_fingerprint": shards.fingerprint})
        (run / "labels.i32").write_bytes(labels.astype(np.int32).tobytes())
    return directory


def looked(run, *words, out="look"):
    """The sections by name."""
    assert look.main([f"run={run}", *SMALL, *words]) == 0
    return {path.stem: read_json(path) for path in (run / out / "report").glob("*.json")}


def content(directory):
    return {path.name: path.read_bytes() for path in sorted((directory / "report").iterdir())}


def test_every_part_is_a_section_with_pictures_that_the_report_shows(run, tmp_path):
    data = real(tmp_path / "data", pictures(40, 0), run)
    sections = looked(run, f"data={data}")
    assert sorted(sections) == sorted([*ALONE, *BESIDE])
    for section in sections.values():
        assert section["pictures"] and len(section["text"]) > 200
        for picture in section["pictures"]:
            assert (run / "look" / "report" / picture["file"]).read_bytes().startswith(b"\x89PNG") and picture[
                "caption"
            ]
    assert "000000000200.safetensors, the averaged generator after 200 images seen" in sections["class_grid"]["text"]
    page = render(tmp_path)
    assert all(section["title"] in page for section in sections.values())


def test_the_same_command_again_writes_the_same_bytes(run, tmp_path):
    data = real(tmp_path / "data", pictures(40, 0), run)
    looked(run, f"data={data}")
    before = content(run / "look")
    looked(run, f"data={data}")
    assert content(run / "look") == before
    looked(run, f"data={data}", "seed=1")
    assert content(run / "look")["class_grid.png"] != before["class_grid.png"]
    assert content(run / "look")["film.png"] == before["film.png"]  # its noise is that of training


def test_without_real_images_their_parts_are_left_out_and_say_so(run, capsys):
    sections = looked(run, "classes=dog,")
    for name in BESIDE:
        assert "Left out: it needs real images (data=DIR)" in sections[name]["text"] and not sections[name]["pictures"]
    assert "Left out: only one class" in sections["interpolation_classes"]["text"]
    assert "Power spectrum: Left out" in capsys.readouterr().out


def test_copies_among_the_samples_are_found(run, tmp_path):
    generator, _ = load_generator(run)
    labels = torch.from_numpy(plan_labels(30, np.full(3, 1 / 3), 0)).long()
    copied = make_images(generator, draw_noise(0, range(30), generator.z_dim), labels, 100, torch.device("cpu"))
    others = pictures(20, 1)
    table = looked(run, f"data={real(tmp_path / 'own', np.concatenate([others, copied]))}")["neighbours"]["table"]
    distances = dict(zip(table["columns"][2:], table["rows"][0][2:], strict=True))
    assert distances == {"smallest": 0, "1 %": 0, "10 %": 0, "median": 0}
    assert [row[1] for row in table["rows"]] == [30, 30, 30, 30]
    table = looked(run, f"data={real(tmp_path / 'other', others)}")["neighbours"]["table"]
    assert table["rows"][0][2] > 20 and table["rows"][1][1] == 20


def test_a_subset_of_the_real_images_is_searched_where_asked_for(run, tmp_path):
    text = looked(run, f"data={real(tmp_path / 'data', pictures(40, 0), run)}", "real=12")["neighbours"]["text"]
    assert "Searched: 12 of the 40 training images" in text


def test_images_that_the_run_was_not_trained_on_are_named_so_and_have_no_classes(run, tmp_path):
    sections = looked(run, f"data={real(tmp_path / 'data', pictures(9, 0))}")
    assert "9 images (not those that the run was trained on)" in sections["neighbours"]["text"]
    assert "Left out: the run was trained on other images" in sections["diversity"]["text"]


def test_variety_is_that_of_the_runs_own_labels_and_absent_for_a_class_without_images(run, tmp_path):
    images = np.repeat(np.array([10, 20, 40], np.uint8)[[0, 1] * 4], 32 * 32).reshape(8, 1, 32, 32)
    data = real(tmp_path / "data", images, run)
    (run / "labels.i32").write_bytes(np.array([0, 0, 1, 1, 1, 1, 2, -1], np.int32).tobytes())
    rows = {row[0]: row for row in looked(run, f"data={data}")["diversity"]["table"]["rows"]}
    assert rows["cat"][2] == rows["cat"][5] == 10  # the two cats differ by ten grey levels everywhere
    assert rows["dog"][5] == 0 and rows["dog"][2] == 10
    assert rows["éléphant blanc"][2:4] == [None, None]
    assert all(row[1] > row[4] > 0 for row in rows.values())


def test_real_images_are_sorted_by_the_clusters_that_the_checkpoint_was_trained_with(run, tmp_path):
    images = np.repeat(np.array([10, 20, 40], np.uint8)[[0, 1] * 4], 32 * 32).reshape(8, 1, 32, 32)
    data = real(tmp_path / "data", images, run)  # beside labels that the run only started with
    apart, mixed = np.array([0, 1] * 4), np.array([0, 0, 1, 1] * 2)
    first = recluster(run, Shards(data / "train"), apart, 250)
    train_further(run, 1, 3, 300, first)
    train_further(run, 1, 3, 400, recluster(run, Shards(data / "train"), mixed, 350))

    def smallest_and_median(nimg):
        words = [f"data={data}", f"checkpoint={run / 'checkpoints' / f'000000000{nimg}.safetensors'}"]
        rows = looked(run, *words)["diversity"]["table"]["rows"]
        return {row[0]: (row[5], row[2]) for row in rows}

    assert smallest_and_median(300) == {"cat": (0, 0), "dog": (0, 0), "éléphant blanc": (None, None)}
    assert smallest_and_median(400) == {"cat": (0, 10), "dog": (0, 10), "éléphant blanc": (None, None)}


def test_a_checkpoint_whose_clusters_are_gone_is_one_line(run, tmp_path, capsys):
    data = real(tmp_path / "data", pictures(8, 0), run)
    recluster(run, Shards(data / "train"), np.arange(8) % 3, 50)  # clusters of another time
    train_further(run, 1, 3, 300, recluster(run, Shards(data / "train"), np.arange(8) % 2, 250))
    (run / "clusters" / "000000000250.i32").unlink()
    for gone in ("000000000250.i32", "000000000250.json"):
        (run / "clusters" / gone).unlink(missing_ok=True)
        assert look.main([f"run={run}", *SMALL, f"data={data}"]) == 2
        error = capsys.readouterr().err.strip()
        assert f"{gone}: no such file, but the checkpoint was trained with" in error and "\n" not in error
    assert not (run / "look").exists()


def test_another_checkpoint_and_place_may_be_named(run, tmp_path):
    first = f"checkpoint={run / 'checkpoints' / '000000000100.safetensors'}"
    out = tmp_path / "my look"
    assert look.main([f"run={run}", *SMALL, first, f"out={out}"]) == 0
    assert "after 100 images seen" in read_json(out / "report" / "class_grid.json")["text"]
    assert not (run / "look").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["samples=0"], "samples=0: expected a positive number"),
        (["count=0"], "count=0: expected a positive number"),
        (["real=1"], "real=1: expected 0 (all) or at least 2"),
        (["thresholds=low"], "thresholds=low: expected numbers above 0"),
        (["classes=dgo"], "did you mean 'dog'?"),
        (["data=nowhere"], "nowhere/train' does not exist"),
        (["checkpoint=nowhere.safetensors"], "nowhere.json"),
        (["sampels=5"], "did you mean 'samples'?"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(run, capsys, words, message):
    assert look.main([f"run={run}", "threads=1", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (run / "look").exists()


def test_real_images_of_another_kind_are_refused(run, tmp_path, capsys):
    make_shards(tmp_path / "small" / "train", [2], [0, 1])
    assert look.main([f"run={run}", "threads=1", f"data={tmp_path / 'small'}"]) == 2
    assert "holds 8 px with 1" in capsys.readouterr().err


def test_help_explains_every_key(capsys):
    assert look.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in look.LookConfig.__dataclass_fields__)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(run, tmp_path):
    data = real(tmp_path / "data", pictures(600, 0), run)  # several chunks
    words = [f"run={run}", f"data={data}", *SMALL, "count=130"]
    assert fork(tmp_path / "one.log", "s3gan.look", *words, f"out={tmp_path / 'one'}").code == 0
    ends = fork_ranks(tmp_path / "two.log", "s3gan.look", *words, f"out={tmp_path / 'two'}")
    assert [end.code for end in ends] == [0, 0], ends
    assert content(tmp_path / "two") == content(tmp_path / "one")
