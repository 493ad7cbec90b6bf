"""Generators and discriminators: one file per family, one table entry per name."""

from enum import Enum

from s3gan.networks.base import Discriminator, Generator, Network
from s3gan.networks.biggan import ARCHITECTURES, LIGHT, BigGan
from s3gan.networks.heads import HeadPlan, Heads, Judgement
from s3gan.networks.resnet_cifar import ResNetCifar
from s3gan.networks.sndcgan import SnDcGan

NETWORKS: dict[str, Network] = {
    "biggan": BigGan(ARCHITECTURES),
    "biggan_light": BigGan(LIGHT),
    "resnet_cifar": ResNetCifar(),
    "sndcgan": SnDcGan(),
}
NetworkName = Enum("NetworkName", {name: name for name in NETWORKS})  # type: ignore[misc]  # the values of a key

__all__ = ["NETWORKS", "Discriminator", "Generator", "HeadPlan", "Heads", "Judgement", "Network", "NetworkName"]
