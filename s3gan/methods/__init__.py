"""The methods by name. Each is a small object; a new family of methods is a new file and one entry per name here."""

from enum import Enum

from s3gan.methods.base import Method
from s3gan.methods.clusters import clustering, clustering_ss
from s3gan.methods.cotrained import s2gan_co, s3gan_co
from s3gan.methods.labelled import labelled_only, s2gan, s3gan, supervised
from s3gan.methods.self_conditioned import self_conditioned, self_conditioned_ss
from s3gan.methods.unlabelled import random_label, single_label, single_label_ss, ssgan

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        supervised,
        labelled_only,
        single_label,
        single_label_ss,
        ssgan,
        random_label,
        clustering,
        clustering_ss,
        self_conditioned,
        self_conditioned_ss,
        s2gan,
        s3gan,
        s2gan_co,
        s3gan_co,
    )
}
MethodName = Enum("MethodName", {name: name for name in METHODS})  # type: ignore[misc]  # the values of the key `method`

__all__ = ["METHODS", "Method", "MethodName"]
