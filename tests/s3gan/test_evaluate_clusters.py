"""Scores of a run that re-clusters: every checkpoint has the clusters that it was trained with."""

import numpy as np
import pytest

from cluster_jobs.core.files import read_json
from cluster_jobs.data.label_table import write_table
from cluster_jobs.data.shards import Shards
from s3gan import evaluate
from selfsup.labelling.given import reveal
from tests.s3gan.test_evaluate import NAMES, RECIPE, real
from tests.s3gan.toy_run import make_run, recluster, train_further


@pytest.fixture
def data(tmp_path):
    return real(tmp_path / "data", [0, 1, 2] * 12 + [0] * 8, [0, 1, 0, 1, 1, 0])


@pytest.fixture
def budget(tmp_path, data):
    train = Shards(data / "train")
    table = reveal(train, 0.5, seed=0)
    table.metadata |= {"method": "reveal", "fingerprint": train.fingerprint}
    write_table(tmp_path / "budget.parquet", table)
    return tmp_path / "budget.parquet"


@pytest.fixture
def reclustered(tmp_path, data):
    """A run with checkpoints of 200 and 300 images, and the two clusterings of the training images, one a checkpoint:
    cats are 0, dogs 1, elephants 2, and then all is turned by one."""
    run = make_run(tmp_path / "run", NAMES)
    classes = np.array([0, 1, 2] * 12 + [0] * 8)
    for nimg, labels in ((150, classes), (250, (classes + 1) % 3)):
        found = recluster(run, Shards(data / "train"), labels, nimg)
        train_further(run, 1, 3, nimg + 50, found)
    return run


CLUSTERED = ["count=90", "cas=false", "prdc=false", "memorisation=0", "reference=train", "intra_count=2"]


def test_every_checkpoint_is_scored_with_the_clusters_that_it_was_trained_with(
    reclustered, data, budget, tmp_path, capsys
):
    words = [f"run={reclustered}", f"data={data}", f"budget={budget}", *CLUSTERED, *RECIPE]
    assert evaluate.main([*words, "checkpoints=2"]) == 0
    draws = read_json(reclustered / "evaluation" / "scores.json")["intra"]["draws"]
    assert [draw["inputs"]["images"]["nimg"] for draw in draws] == [300, 200]
    older = f"checkpoint={reclustered / 'checkpoints' / '000000000200.safetensors'}"
    assert evaluate.main([*words, older, f"out={tmp_path / 'alone'}"]) == 0
    alone = read_json(tmp_path / "alone" / "scores.json")["intra"]
    assert draws[1]["results"] == alone["results"]
    assert draws[1]["inputs"]["tables"] != draws[0]["inputs"]["tables"]
    capsys.readouterr()
    (reclustered / "clusters" / "000000000150.parquet").unlink()
    assert evaluate.main([*words, "checkpoints=2", f"out={tmp_path / 'gone'}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "000000000150.parquet' is gone" in line]
    assert len(lines) == 1 and lines[0].startswith("images seen: 200") and "intra: n/a" in lines[0]
    assert "intra" in read_json(tmp_path / "gone" / "report" / "draws.json")["table"]["columns"]


@pytest.mark.parametrize("spoil", ["gone", "others"])
def test_a_checkpoint_whose_clusters_are_gone_or_others_is_one_line_and_scores_nothing(
    reclustered, data, budget, capsys, spoil
):
    if spoil == "gone":
        (reclustered / "clusters" / "000000000150.json").unlink()
    else:
        recluster(reclustered, Shards(data / "train"), np.zeros(44, int), 150)
    words = [f"run={reclustered}", f"data={data}", f"budget={budget}", *CLUSTERED, *RECIPE]
    assert evaluate.main([*words, "checkpoints=2"]) == 2
    error = capsys.readouterr().err.strip()
    assert "000000000150.json: " in error and "the checkpoint was trained with" in error and "\n" not in error
    assert not (reclustered / "evaluation").exists()
