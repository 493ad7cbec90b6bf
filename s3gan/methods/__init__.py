"""The methods by name. Each is a small object; a new family is a new file and a line here.

The co-trained methods (S2GAN-CO, S3GAN-CO), which learn from a partial table, belong into `cotrained.py`.
"""

from enum import Enum

from s3gan.methods.base import Method
from s3gan.methods.clusters import clustering, clustering_ss
from s3gan.methods.labelled import s2gan, s3gan, supervised
from s3gan.methods.unlabelled import random_label, single_label

METHODS: dict[str, Method] = {
    method.name: method for method in (supervised, single_label, random_label, clustering, clustering_ss, s2gan, s3gan)
}


class MethodName(Enum):
    """The values of the key `method`."""

    supervised = "supervised"
    single_label = "single_label"
    random_label = "random_label"
    clustering = "clustering"
    clustering_ss = "clustering_ss"
    s2gan = "s2gan"
    s3gan = "s3gan"


__all__ = ["METHODS", "Method", "MethodName"]
