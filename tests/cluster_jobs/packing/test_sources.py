"""Sources against pictures that the tests make themselves, and against scikit-learn and the MNIST file format."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cluster_jobs.core.errors import UserError
from cluster_jobs.packing.sources import NoImage, decode, digits, folder, hold_out, idx
from tests.cluster_jobs.pictures import encode, noise, save, write_idx


def test_digits_split_into_the_first_1437_and_the_last_360_of_scikit_learn() -> None:
    sources = digits(32, "auto")
    bunch = load_digits()
    assert [len(sources["train"]), len(sources["test"])] == [1437, 360]
    assert sources["train"].classes == [str(number) for number in range(10)]
    for split, offset in (("train", 0), ("test", 1437)):
        image, label, annotation = sources[split].read(7)
        assert image.shape == (1, 32, 32) and image.dtype == np.uint8 and annotation is None
        assert label == bunch.target[offset + 7]
        means = image[0].reshape(8, 4, 8, 4).mean((1, 3)) / 255 * 16  # each source pixel became a 4 × 4 block, smoothly
        assert np.corrcoef(means.ravel(), bunch.images[offset + 7].ravel())[0, 1] > 0.95
    assert np.array_equal(
        digits(8, "auto")["train"].read(3)[0][0], np.rint(bunch.images[3] * 255 / 16).astype(np.uint8)
    )


def test_grey_arrays_can_be_written_in_colour() -> None:
    grey, colour = digits(32, "L")["test"].read(0)[0], digits(32, "RGB")["test"].read(0)[0]
    assert colour.shape == (3, 32, 32)
    assert all(np.array_equal(channel, grey[0]) for channel in colour)


def test_idx_images_of_28_pixels_are_centred_in_32_without_resampling(tmp_path: Path) -> None:
    images, labels = noise(5, 28, 28), np.array([3, 0, 1, 1, 2], np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images[:2])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels[:2])
    sources = idx(tmp_path, 32, "auto", [])
    assert {split: len(source) for split, source in sources.items()} == {"train": 5, "test": 2}
    image, label, _ = sources["train"].read(4)
    assert label == 2 and np.array_equal(image[0, 2:30, 2:30], images[4])
    assert image.sum() == images[4].sum(dtype=np.int64)
    assert sources["train"].classes == ["0", "1", "2", "3"]
    assert idx(tmp_path, 64, "auto", [])["train"].read(0)[0].shape == (1, 64, 64)
    assert idx(tmp_path, 32, "auto", ["a", "b", "c", "d"])["test"].classes == ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="2 names, but the labels go up to 3"):
        idx(tmp_path, 32, "auto", ["a", "b"])


def test_idx_files_that_are_missing_truncated_or_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        idx(tmp_path, 32, "auto", [])
    whole = tmp_path / "train-images-idx3-ubyte"
    write_idx(whole, noise(3, 28, 28))
    assert (idx(tmp_path, 32, "auto", [])["train"].labels == -1).all()  # no label file: unlabelled
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: truncated.*3 × 28 × 28"):
        idx(tmp_path, 32, "auto", [])
    whole.write_bytes(b"hello, world, this is text")
    with pytest.raises(UserError, match="expected an IDX file"):
        idx(tmp_path, 32, "auto", [])
    whole.unlink()
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(packed, noise(3, 28, 28))
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"ubyte.gz: damaged or truncated"):
        idx(tmp_path, 32, "auto", [])
    write_idx(packed, noise(3, 28, 28))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(UserError, match="2 labels for the 3 images"):
        idx(tmp_path, 32, "auto", [])


def test_folder_classes_are_sorted_names_with_spaces_accents_and_quotes(tmp_path: Path) -> None:
    names = ["Zebra", "a=b 'c'", "Éléphant d'Asie", "zèbre [1]"]
    for number, name in enumerate(names):
        save(tmp_path / name / "deep er" / f"{number}.png", np.full((40, 40), number, np.uint8))
    source = folder(tmp_path, 32, "auto")["train"]
    assert source.classes == sorted(names)
    for index in range(4):
        image, label, annotation = source.read(index)
        name = names[image[0, 0, 0]]
        assert label is not None and source.classes[label] == name
        assert annotation == {"file": f"{name}/deep er/{names.index(name)}.png"}


def test_a_class_name_is_the_same_however_its_accents_are_stored(tmp_path: Path) -> None:
    save(tmp_path / "e\u0301te\u0301" / "1.png", noise(32, 32))  # as macOS stores été
    save(tmp_path / "hiver" / "1.png", noise(32, 32))
    assert folder(tmp_path, 32, "auto")["train"].classes == ["hiver", "été"]


def test_folder_order_mixes_the_classes(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(50):
            save(tmp_path / name / f"{number}.png", noise(4, 4))
    labels = folder(tmp_path, 4, "auto")["train"].labels
    assert 10 < labels[:50].sum() < 40


def test_a_flat_folder_is_unlabelled_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    save(tmp_path / "one.png", noise(32, 32))
    save(tmp_path / "two.webp", noise(32, 32, 3), lossless=True)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    source = folder(tmp_path, 32, "auto")["train"]
    assert len(source) == 2 and source.classes == [] and source.read(0)[1] is None


def test_train_and_test_folders_are_the_splits_and_share_their_classes(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "1.png", noise(32, 32))
    save(tmp_path / "train" / "dog" / "1.png", noise(32, 32))
    save(tmp_path / "val" / "dog" / "2.png", noise(32, 32, 3))
    sources = folder(tmp_path, 32, "auto")
    assert set(sources) == {"train", "test"}
    assert sources["train"].classes == sources["test"].classes == ["cat", "dog"]
    assert sources["test"].read(0)[1:] == (1, {"file": "val/dog/2.png"})
    assert sources["train"].mode == sources["test"].mode == "RGB"  # one colour picture anywhere
    save(tmp_path / "bus" / "1.png", noise(32, 32))  # now train is a class like bus
    assert set(folder(tmp_path, 32, "auto")) == {"train"}
    assert folder(tmp_path, 32, "auto")["train"].classes == ["bus", "train", "val"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        folder(tmp_path, 32, "auto")
    with pytest.raises(UserError, match="no such directory"):
        folder(tmp_path / "missing", 32, "auto")


def test_links_to_directories_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png", noise(32, 32))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    assert len(folder(tmp_path / "images", 32, "auto")["train"]) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_lies_on_white(kind: str) -> None:
    array = np.zeros((32, 32, 4), np.uint8)
    array[:16] = [10, 20, 30, 255]
    image = decode(encode(Image.fromarray(array), kind, lossless=True), 32, "RGB")
    assert (image[:, :16] == np.array([10, 20, 30])[:, None, None]).all() and (image[:, 16:] == 255).all()


def test_the_shorter_side_is_resized_and_the_centre_is_cut_out() -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = [0, 255, 0]  # the central square
    image = decode(encode(Image.fromarray(wide), "PNG"), 32, "RGB")
    assert image.shape == (3, 32, 32)
    assert (image[1, :, 2:30] > 250).all() and (image[0] < 5).all()
    tall = decode(encode(Image.fromarray(wide.transpose(1, 0, 2)), "PNG"), 32, "RGB")
    assert np.array_equal(tall, image.transpose(0, 2, 1))
    assert decode(encode(Image.fromarray(noise(3, 500)), "PNG"), 32, "L").shape == (1, 32, 32)  # smaller than size


def test_exif_orientation_is_applied() -> None:
    array = np.zeros((64, 64), np.uint8)
    array[:32] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90° clockwise, bright on the right
    image = decode(encode(Image.fromarray(array), "JPEG", exif=exif, quality=95), 32, "L")[0]
    assert image[:, 20:].mean() > 200 and image[:, :12].mean() < 50


def test_a_large_jpeg_is_decoded_like_a_large_png() -> None:
    ramp = np.tile(np.linspace(0, 255, 1600).astype(np.uint8), (1200, 1))
    picture = Image.fromarray(np.stack([ramp, np.full_like(ramp, 90), ramp], axis=-1))
    jpeg, png = (decode(encode(picture, kind), 32, "RGB").astype(int) for kind in ("JPEG", "PNG"))
    assert np.abs(jpeg - png).max() <= 6


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    tones = np.linspace(0, 255, 32 * 32).astype(np.uint8).reshape(32, 32)
    sixteen = encode(Image.fromarray(tones.astype(np.uint16) * 257), "PNG")
    assert np.array_equal(decode(sixteen, 32, "L")[0], tones)


def test_grey_means_every_picture_is_stored_as_grey(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(32, 32))
    save(tmp_path / "b.jpg", noise(32, 32))
    save(tmp_path / "c.png", noise(32, 32).astype(np.uint16) * 257)
    (tmp_path / "d.png").write_bytes(b"no picture")
    source = folder(tmp_path, 32, "auto")["train"]
    assert source.mode == "L"
    assert folder(tmp_path, 32, "RGB")["train"].mode == "RGB"
    save(tmp_path / "e.png", noise(32, 32, 3))
    assert folder(tmp_path, 32, "auto")["train"].mode == "RGB"
    grey = folder(tmp_path, 32, "L")["train"]
    assert all(grey.read(i)[0].shape == (1, 32, 32) for i in range(len(grey)) if grey.name(i) != "d.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_no_picture(kind: str) -> None:
    content = encode(Image.fromarray(noise(200, 200, 3)), kind)
    assert decode(content, 32, "RGB").shape == (3, 32, 32)
    with pytest.raises(NoImage):
        decode(content[: len(content) // 2], 32, "RGB")


def test_other_files_are_no_pictures() -> None:
    for content in (b"", b"some text", encode(Image.fromarray(noise(8, 8)), "TIFF")):
        with pytest.raises(NoImage, match="not a PNG, JPEG or WebP"):
            decode(content, 32, "RGB")


def test_a_file_that_cannot_be_opened_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NoImage, match="No such file"):
        folder(tmp_path, 32, "auto")["train"].read(0)


def test_the_held_out_share_is_fair_to_every_class_and_stable(tmp_path: Path) -> None:
    for name, count in (("many", 40), ("few", 3), ("one", 1)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png", noise(4, 4))
    source = folder(tmp_path, 4, "auto")["train"]
    parts = hold_out(source, 0.25, seed=0)
    counts = {split: dict(Counter(part.classes[label] for label in part.labels)) for split, part in parts.items()}
    assert counts == {"train": {"few": 2, "many": 30, "one": 1}, "test": {"few": 1, "many": 10}}
    names = {split: {part.name(i) for i in range(len(part))} for split, part in parts.items()}
    assert len(names["train"] | names["test"]) == 44 and not names["train"] & names["test"]
    larger = hold_out(source, 0.5, seed=0)["test"]
    assert names["test"] <= {larger.name(i) for i in range(len(larger))}
    other = hold_out(source, 0.25, seed=1)["test"]
    assert names["test"] != {other.name(i) for i in range(len(other))}


def test_nothing_can_be_held_out_of_single_samples(tmp_path: Path) -> None:
    save(tmp_path / "only.png", noise(4, 4))
    with pytest.raises(UserError, match="no class has two samples"):
        hold_out(folder(tmp_path, 4, "auto")["train"], 0.1, seed=0)
