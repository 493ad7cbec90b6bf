"""An untrained classifier that gives every class about equally often to a generator's images: for what needs one."""

from pathlib import Path

import torch

from cluster_jobs.core import seeds
from s3gan.inference.loading import load_generator
from s3gan.inference.network_file import read_network
from s3gan.inference.sampling import draw_noise
from selfsup.encoders.resnet import build_encoder
from selfsup.labelling.classifier import Classifier, classifier_path, save_classifier

SPREAD = 4.0  # of the logits


def make_classifier(table: Path, run: Path) -> Path:
    """Writes the classifier beside the label table that it would have made; the table itself is not there."""
    generator, _ = load_generator(run)
    names = read_network(run)["class_names"]
    encoder = build_encoder("resnet8", read_network(run)["channels"], 4)
    classifier = Classifier(encoder, len(names)).eval()
    labels = torch.arange(300) % len(names)
    with torch.no_grad():
        torch.nn.init.normal_(classifier.head.weight, generator=seeds.generator("cpu", 0, "head"))
        logits = classifier(generator(draw_noise(1, range(300), generator.z_dim), labels))
        classifier.head.bias.copy_(-logits.mean(0))
        scale = SPREAD / logits.std(0)
        classifier.head.bias *= scale
        classifier.head.weight *= scale[:, None]
    classifier.facts = {"class_names": names, "data_fingerprint": "f" * 64, "budget": {"rows": 3}}
    save_classifier(classifier_path(table), classifier)
    return table
