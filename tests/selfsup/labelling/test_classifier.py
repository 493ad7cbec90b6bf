from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_float
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.classifier import (
    AugmentedBatches,
    Classifier,
    ClassifierRecipe,
    ShardPictures,
    blocks,
    class_weights,
    fit,
    load_classifier,
    losses,
    predict,
    save_classifier,
)
from selfsup.pretext.rotation import rotate_all
from tests.selfsup.toy_shards import make_shards

RECIPE = ClassifierRecipe(width=4, steps=40, batch=16, lr=1e-2, shift=1, rotation_batch=4)


def bars(count: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar at the top (class 0), at the left (1) or at the bottom (2): uint8 (N, C, 16, 16)."""
    noise = np.random.default_rng(0).integers(0, 60, (count, channels, 16, 16)).astype(np.uint8)
    labels = np.arange(count) % 3
    noise[labels == 0, :, 1:5] += 150
    noise[labels == 1, :, :, 1:5] += 150
    noise[labels == 2, :, -5:-1] += 150
    return noise, labels


def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    return float((predict(classifier, blocks(images, 50), "cpu").argmax(1).numpy() == labels).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_one_label_a_class_and_the_rotation_loss_are_enough_for_an_easy_task(channels: int):
    images, labels = bars(120, channels)
    recipe = ClassifierRecipe(width=4, steps=40, batch=6, lr=1e-2, shift=1, rotation_weight=1.0, rotation_batch=4)
    classifier = fit(images[:3], labels[:3], 3, recipe, seed=0, device="cpu", unlabelled=images)
    assert accuracy(classifier, images, labels) > 0.9


def test_classes_of_very_uneven_size_or_without_pictures_are_survived():
    images, labels = bars(120)
    kept = np.concatenate([np.flatnonzero(labels == 0), [1]])
    recipe = ClassifierRecipe(width=4, steps=80, batch=16, lr=1e-2, shift=1, balance=1.0)
    classifier = fit(images[kept], labels[kept], 4, recipe, seed=0, device="cpu")
    logits = predict(classifier, blocks(images), "cpu")
    assert logits.shape == (120, 4) and logits.isfinite().all()
    assert (logits.argmax(1).numpy() == labels)[labels < 2].mean() > 0.9


def test_the_same_arguments_give_the_same_weights_and_another_seed_gives_others():
    images, labels = bars(20)
    recipe = ClassifierRecipe(width=4, steps=4, batch=8, rotation_weight=1.0, rotation_batch=2)
    first, again, other = (fit(images, labels, 3, recipe, seed=seed, device="cpu").state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_pictures_in_shards_train_the_same_classifier_as_pictures_in_memory(tmp_path: Path):
    images, labels = bars(21)
    shards = make_shards(tmp_path, [8, 13], labels.tolist(), images=images)
    kept = np.array([1, 5, 6, 8, 9, 20])
    recipe = ClassifierRecipe(width=4, steps=4, batch=4, rotation_weight=1.0, rotation_batch=2)
    in_memory = fit(images[kept], labels[kept], 3, recipe, seed=0, device="cpu", unlabelled=images)
    from_disk = fit(
        ShardPictures(shards, kept), labels[kept], 3, recipe, seed=0, device="cpu", unlabelled=ShardPictures(shards)
    )
    for name, tensor in in_memory.state_dict().items():
        assert torch.equal(tensor, from_disk.state_dict()[name])


def test_every_picture_comes_once_an_epoch_whatever_the_batch():
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    draws = AugmentedBatches(images, 4, RECIPE, seed=0, purpose="test")
    indices = np.concatenate([draws.batch(step, "cpu")[1] for step in range(10)])
    epochs = indices.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    pictures, chosen = draws.batch(3, "cpu")
    torch.testing.assert_close(pictures[:, 0, 0, 0], torch.from_numpy(chosen).float() / 127.5 - 1)


def test_the_loss_is_the_labelled_cross_entropy_plus_the_weighted_rotation_loss():
    images, labels = bars(6)
    classifier = Classifier(build_encoder("resnet8", 1, 4), 3).eval()
    x, answers = to_float(torch.from_numpy(images), "cpu"), torch.from_numpy(labels)
    even = torch.ones(3)
    turned, rotations = rotate_all(x[4:])
    by_hand = F.cross_entropy(classifier(x[:4]), answers[:4]) + 0.5 * F.cross_entropy(
        classifier.rotation_head(classifier.features(turned)), rotations
    )
    torch.testing.assert_close(losses(classifier, x[:4], answers[:4], even, x[4:], 0.5), by_hand)
    supervised = F.cross_entropy(classifier(x), answers)
    torch.testing.assert_close(losses(classifier, x, answers, even, None, 0.5), supervised)


def test_class_weights_even_classes_out_as_far_as_they_are_told_to():
    targets = torch.tensor([0] * 90 + [1] * 10)
    assert class_weights(targets, 3, 0.0).tolist() == [1, 1, 0]
    weights = class_weights(targets, 3, 1.0)
    assert weights[0] * 90 == pytest.approx(50) and weights[1] * 10 == pytest.approx(50) and weights[2] == 0
    assert class_weights(targets, 3, 0.5)[targets].mean() == pytest.approx(1)


def test_fitting_starts_from_the_given_encoder_and_leaves_it_alone():
    images, labels = bars(12)
    init = build_encoder("resnet14", 1, 4, seed=5)
    before = {name: tensor.clone() for name, tensor in init.state_dict().items()}
    still = ClassifierRecipe(steps=1, batch=4, lr=0.0)
    classifier = fit(images, labels, 3, still, seed=0, device="cpu", init=init)
    assert torch.equal(classifier.encoder.stem.weight, init.stem.weight)
    moving = ClassifierRecipe(steps=2, batch=4, lr=0.1)
    classifier = fit(images, labels, 3, moving, seed=0, device="cpu", init=init)
    assert not torch.equal(classifier.encoder.stem.weight, init.stem.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in init.state_dict().items())


def test_a_saved_classifier_predicts_as_before(tmp_path: Path):
    images, labels = bars(12)
    classifier = fit(images, labels, 3, ClassifierRecipe(width=4, steps=2, batch=4), seed=0, device="cpu")
    save_classifier(tmp_path / "c.safetensors", classifier)
    loaded = load_classifier(tmp_path / "c.safetensors", "cpu")
    assert torch.equal(predict(loaded, blocks(images), "cpu"), predict(classifier, blocks(images), "cpu"))


def test_nothing_to_learn_from_and_values_out_of_range_are_refused():
    images, labels = bars(3)
    with pytest.raises(UserError, match="no labelled"):
        fit(images[:0], labels[:0], 3, RECIPE, seed=0, device="cpu")
    for recipe in (ClassifierRecipe(steps=0), ClassifierRecipe(lr=-1.0), ClassifierRecipe(encoder="resnet9")):
        with pytest.raises(UserError, match="expected"):
            fit(images, labels, 3, recipe, seed=0, device="cpu")
