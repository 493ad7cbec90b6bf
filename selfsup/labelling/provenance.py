"""Which labels an encoder was trained with: its products must not be evaluated on labels it was trained with."""

from pathlib import Path
from typing import Any

from cluster_jobs.core.files import read_json
from cluster_jobs.data.label_table import read_table
from selfsup.encoders.feature_table import TABLE
from selfsup.encoders.loading import CLASSIFIER_FILE, read_network
from selfsup.labelling.classifier import table_path


def labels_seen_by(encoder: str) -> dict[str, Any] | None:
    """Metadata and `path` of the label table that an encoder was trained with.

    {} where that is unknown, None where it saw no label. If the table was made by a classifier, its metadata says in
    `encoder_table` which labels the classifier's own encoder had seen.

    Args:
        encoder: what `encoder=` takes; "" for none.

    Raises:
        UserError: the encoder's file, or the table, is missing or damaged.
    """
    path = Path(encoder)
    if path.suffix == TABLE:
        return read_json(path.with_suffix(".json")).get("encoder_table", {})
    file = path / CLASSIFIER_FILE if (path / CLASSIFIER_FILE).is_file() else path
    if not encoder or file.is_dir():  # a run of selfsup.pretrain
        return None
    if file.suffix != ".safetensors":
        return {}  # a user's own backbone
    if "classes" not in read_network(file)[1]:
        return None  # the file of such a run
    table = table_path(file)
    return {**read_table(table).metadata, "path": str(table)} if table.is_file() else {}
