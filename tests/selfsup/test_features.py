from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.images import to_float
from cluster_jobs.data.shards import Shards
from cluster_jobs.distributed.job import Job
from selfsup.encoders.feature_table import features_of, read_features
from selfsup.encoders.loading import save_encoder
from selfsup.encoders.resnet import build_encoder
from selfsup.features import main
from tests.cluster_jobs.tiny import write_tiny_shards
from tests.processes import fork_ranks


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(write_tiny_shards(tmp_path / "data", (7, 300, 11)))  # more than one block, and an uneven end


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "encoder.safetensors", build_encoder("resnet8", 1, 4, seed=1))
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def job() -> Job:
    return Job(Accelerator(cpu=True))


def words(shards: Shards, encoder: Path, out: Path) -> list[str]:
    return [f"data={shards.directory}", f"encoder={encoder}", f"out={out}", "threads=1"]


def test_a_table_holds_the_encoders_features_of_every_sample_in_index_order(shards, encoder, job, tmp_path):
    assert main(words(shards, encoder, tmp_path / "table.npy")) == 0
    table = read_features(tmp_path / "table.npy", shards)
    images = np.stack([shards.image(index) for index in range(len(shards))])
    with torch.no_grad():
        expected = build_encoder("resnet8", 1, 4, seed=1).eval()(to_float(torch.from_numpy(images), "cpu"))
    torch.testing.assert_close(torch.from_numpy(np.array(table)), expected)
    assert np.array_equal(features_of(str(tmp_path / "table.npy"), shards, job), table)
    assert np.array_equal(features_of(str(encoder), shards, job), table)


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(shards, encoder, tmp_path):
    assert main(words(shards, encoder, tmp_path / "one.npy")) == 0
    ends = fork_ranks(tmp_path / "log", "selfsup.features", *words(shards, encoder, tmp_path / "two.npy"))
    assert [end.code for end in ends] == [0, 0], [end.output for end in ends]
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()


def test_a_table_of_other_data_or_without_its_description_is_refused(shards, encoder, tmp_path):
    assert main(words(shards, encoder, tmp_path / "table.npy")) == 0
    other = Shards(write_tiny_shards(tmp_path / "other", (5, 4)))
    with pytest.raises(UserError, match="other data"):
        read_features(tmp_path / "table.npy", other)
    (tmp_path / "table.json").unlink()
    with pytest.raises(UserError, match="no such file"):
        read_features(tmp_path / "table.npy", shards)


def test_a_truncated_table_is_refused(shards, encoder, tmp_path):
    assert main(words(shards, encoder, tmp_path / "table.npy")) == 0
    content = (tmp_path / "table.npy").read_bytes()
    (tmp_path / "table.npy").write_bytes(content[:-100])
    with pytest.raises(UserError, match="unreadable"):
        read_features(tmp_path / "table.npy", shards)


def test_what_the_user_gets_wrong_is_one_line_and_exit_code_two(shards, encoder, tmp_path, capsys):
    wrong = {
        "out": (words(shards, encoder, tmp_path / "table.csv"), "ends in .npy"),
        "encoder": (words(shards, tmp_path / "absent", tmp_path / "table.npy"), "no such run directory or file"),
    }
    for words_, message in wrong.values():
        assert main(words_) == 2
        assert message in capsys.readouterr().err
