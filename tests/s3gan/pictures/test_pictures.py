"""The small parts behind the pictures: the sheet, the choice of classes, thresholds, the film strip, pair distances."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.files import read_json
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import build_generator
from s3gan.inference.sampling import draw_noise
from s3gan.pictures import sample_grid as gallery
from s3gan.pictures.class_choice import choose_classes
from s3gan.pictures.class_grid import class_grid
from s3gan.pictures.diversity import pair_distances
from s3gan.pictures.film import film, rows_of_grid, spread
from s3gan.pictures.sheet import sheet_png
from s3gan.pictures.truncation import parse_thresholds, truncation_sweep
from tests.s3gan.toy_run import make_run, train_further

CPU = torch.device("cpu")


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def noise(indices, truncation=0.0):
    return draw_noise(0, indices, 64, truncation)


# the sheet


def test_a_sheet_holds_every_image_at_its_place_below_and_beside_the_names():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((6, 1, 64, 64), np.uint8)
    plain, named = (
        opened(sheet_png(images, 3)),
        opened(sheet_png(images, 3, rows=["a", "longer"], headers=["x", "y", "z"])),
    )
    assert plain.shape == (2 * 66 - 2, 3 * 66 - 2, 3)
    top, left = named.shape[0] - plain.shape[0], named.shape[1] - plain.shape[1]
    assert top > 0 and left > 20
    np.testing.assert_array_equal(named[top:, left:], plain)
    for number in range(6):
        tile = plain[number // 3 * 66 :, number % 3 * 66 :][:64, :64]
        assert (tile == 40 * number).all()
    assert (named[:top] < 128).any() and (named[top : top + 66, :left] < 128).any()  # there is text


def test_small_images_are_doubled_and_wide_sheets_halved_by_means():
    small = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8)).astype(np.uint8)
    np.testing.assert_array_equal(opened(sheet_png(small, 2))[::2, :16:2, 0], small[0, 0])
    large = np.random.default_rng(1).integers(0, 256, (9, 3, 256, 256)).astype(np.uint8)
    shrunk = opened(sheet_png(large, 9))
    assert shrunk.shape[1] == 9 * 130 - 2
    mean = large[0, :, :2, :2].mean((1, 2))
    assert np.abs(shrunk[0, 0] - mean).max() <= 0.5


def test_a_name_that_is_too_long_is_cut():
    image = np.zeros((1, 1, 32, 32), np.uint8)
    assert opened(sheet_png(image, 1, rows=["x" * 500])).shape[1] < 400


# the choice of classes


def test_a_count_of_classes_is_a_keyed_choice_that_grows_by_addition():
    names = [f"class {number}" for number in range(1000)]
    few, more = choose_classes("10", names, 0), choose_classes("20", names, 0)
    assert len(few) == 10 and len(more) == 20 and set(few) < set(more) and few == sorted(few)
    assert few != list(range(10)) and few != choose_classes("10", names, 1)
    assert choose_classes("2000", names, 0) == list(range(1000))


def test_classes_are_named_in_the_order_that_is_wanted():
    names = ["cat", "dog", "3", "tench, Tinca tinca"]
    assert choose_classes("dog, cat,dog", names, 0) == [1, 0]
    assert choose_classes("3,", names, 0) == [2]
    assert choose_classes("tench, Tinca tinca", names, 0) == [3]
    assert len(choose_classes("3", names, 0)) == 3


@pytest.mark.parametrize(
    ("wanted", "message"), [("dgo", "did you mean 'dog'"), ("0", "classes=0"), ("", "no class ''")]
)
def test_a_class_that_there_is_not_is_refused(wanted, message):
    with pytest.raises(UserError, match=message):
        choose_classes(wanted, ["cat", "dog"], 0)


# class grid and truncation


def test_the_class_grid_has_the_same_noise_in_every_column():
    scene = class_grid(noise, [4, 1], list("abcde"), 3)
    assert scene.conditions.tolist() == [4, 4, 4, 1, 1, 1]
    assert torch.equal(scene.z[:3], noise(range(3))) and torch.equal(scene.z[3:], scene.z[:3])


def test_thresholds_are_numbers_above_zero():
    assert parse_thresholds("2, 0.5,1,2") == [0.5, 1, 2]
    for text in ("", "a", "0,1", "-1", "inf", "nan"):
        with pytest.raises(UserError, match="thresholds="):
            parse_thresholds(text)


def test_columns_of_the_truncation_sweep_are_the_same_quantiles():
    scene = truncation_sweep(noise, [1], ["cat", "dog"], 40, [0.5, 2.0])
    rows = scene.z.reshape(3, 40, 64).double()
    assert rows[0].abs().max() <= 0.5 and 1.9 < rows[1].abs().max() <= 2 < rows[2].abs().max() < math.inf
    cdf = torch.special.ndtr
    shares = [
        (cdf(row) - cdf(torch.tensor(-cut))) / (1 - 2 * cdf(torch.tensor(-cut)))
        for row, cut in zip(rows, (0.5, 2.0, math.inf), strict=True)
    ]
    torch.testing.assert_close(shares[0], shares[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(shares[1], shares[2], atol=1e-5, rtol=0)
    assert abs(rows[2].mean()) < 0.06 and abs(rows[2].std() - 1) < 0.06


# variety


def test_pair_distances_are_root_mean_square_differences():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5)).astype(np.uint8)
    flat = images.reshape(4, -1).astype(float)
    naive = [np.sqrt(((flat[i] - flat[j]) ** 2).mean()) for i in range(4) for j in range(i + 1, 4)]
    np.testing.assert_allclose(pair_distances(images), naive, rtol=1e-12)
    assert len(pair_distances(images[:1])) == 0


# the film strip


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_picture_is_read_as_it_was_drawn(tmp_path, channels):
    network = read_json(make_run(tmp_path / "run", channels=channels) / "network.json")
    generator = build_generator(network).eval()
    gallery._save(tmp_path / "samples.png", generator, 5)
    np.testing.assert_array_equal(
        gallery.read_samples(tmp_path / "samples.png", network), gallery.draw_grid(generator, 5)
    )
    with pytest.raises(UserError, match="expected"):
        gallery.read_samples(tmp_path / "samples.png", network | {"classes": 2})


def test_moments_are_spread_with_the_first_and_the_last():
    assert spread(3, 12) == [0, 1, 2] and spread(1, 4) == [0] and spread(0, 4) == []
    assert spread(100, 12)[0] == 0 and spread(100, 12)[-1] == 99 and len(set(spread(100, 12))) == 12


def test_a_strip_shows_few_classes_with_several_noise_vectors_each():
    assert rows_of_grid(1) == [(0, column) for column in range(8)]
    assert rows_of_grid(20) == [(row, column) for row in (0, 6, 13, 19) for column in (0, 1)]


def test_the_film_joins_sample_pictures_and_checkpoints_in_the_order_of_images_seen(tmp_path, capsys):
    run = make_run(tmp_path / "run", nimg=100)
    generator, _ = load_generator(run)
    assert film(run, CPU).pictures == () and "needs two" in film(run, CPU).text
    train_further(run, 1, 3, 300)
    gallery._save(run / "samples" / f"{200:012d}.png", generator, 0)  # what 100 draws, at 200
    made = film(run, CPU)
    assert made.pictures[0].caption == "images seen: 100, 200, 300"
    strip = opened(made.pictures[0].png)
    frames = [strip[-(6 * 66 - 2) :, strip.shape[1] - (3 - frame) * 66 + 2 :][:, :64] for frame in range(3)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[1] != frames[2]).any()
    expected = gallery.draw_grid(generator, 0)[gallery.COLUMNS + 1, 0]  # the second class and noise vector
    np.testing.assert_array_equal(frames[0][3 * 66 : 3 * 66 + 64 : 2, ::2, 0], expected)
    (run / "samples" / f"{400:012d}.png").write_bytes(b"torn")
    assert film(run, CPU).pictures[0].caption == "images seen: 100, 200, 300"
    assert "left out of the film strip" in capsys.readouterr().err
