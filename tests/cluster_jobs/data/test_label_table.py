"""Label tables: the file, and the merge into one array."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.label_table import LabelTable, merge, open_merged, read_table, write_table
from cluster_jobs.data.shards import Shards
from tests.selfsup.toy_shards import make_shards

COUNTS = (5, 1, 7, 3)
LABELS = [0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2, 2, 0, 1, 2, 0]


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return make_shards(tmp_path / "data", COUNTS, LABELS)


def table_of(shards: Shards, indices: list[int], **metadata: object) -> LabelTable:
    return LabelTable(
        keys=[shards.key(index) for index in indices],
        labels=np.array([LABELS[index] for index in indices], np.int32),
        origin=np.array(["true" if index % 2 else "inferred" for index in indices]),
        confidence=np.linspace(0.25, 1, len(indices), dtype=np.float32),
        metadata={"classes": shards.classes, "fingerprint": shards.fingerprint, "method": "reveal", **metadata},
    )


def test_a_table_reads_back_as_it_was_written(shards: Shards, tmp_path: Path) -> None:
    table = table_of(shards, [0, 4, 9], fraction=0.1)
    table.probabilities = np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7]], np.float32)
    path = tmp_path / "a folder, né 'quoted' = yes" / "table.parquet"
    write_table(path, table)
    back = read_table(path)
    assert back.keys == table.keys and back.metadata == table.metadata
    for name in ("labels", "origin", "confidence", "probabilities"):
        written, read = getattr(table, name), getattr(back, name)
        assert np.array_equal(written, read) and written.dtype.kind == read.dtype.kind, name
    assert back.labels.dtype == np.int32 and back.confidence.dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_soft_labels_may_be_left_on_the_disk(shards: Shards, tmp_path: Path) -> None:
    table = table_of(shards, [0, 4])
    table.probabilities = np.full((2, 3), 1 / 3, np.float32)
    write_table(tmp_path / "table.parquet", table)
    back = read_table(tmp_path / "table.parquet", probabilities=False)
    assert back.probabilities is None and back.keys == table.keys and back.metadata == table.metadata


def test_a_table_that_names_no_data_is_none(shards: Shards, tmp_path: Path) -> None:
    table = table_of(shards, [0, 4])
    del table.metadata["fingerprint"]
    write_table(tmp_path / "table.parquet", table)
    with pytest.raises(UserError, match=r"no table of selfsup.label \('fingerprint'\)"):
        read_table(tmp_path / "table.parquet")


def test_the_file_is_ordinary_parquet_with_the_documented_columns(shards: Shards, tmp_path: Path) -> None:
    write_table(tmp_path / "table.parquet", table_of(shards, [0, 4, 9]))
    stored = pq.read_table(tmp_path / "table.parquet")
    assert stored.column_names == ["key", "label", "origin", "confidence"]
    assert [str(kind) for kind in stored.schema.types[::1]][:2] == ["string", "int32"]
    assert str(stored.schema.field("confidence").type) == "float"
    assert stored["key"].to_pylist() == [shards.key(0), shards.key(4), shards.key(9)]


def test_the_same_table_gives_the_same_bytes(shards: Shards, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_table(tmp_path / name, table_of(shards, [0, 4, 9]))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "foreign", "label", "origin"])
def test_a_file_that_is_no_label_table_is_one_clear_line(shards: Shards, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "table.parquet"
    table = table_of(shards, [0, 4, 9])
    if damage == "label":
        table.labels = np.array([0, 3, 1], np.int32)
    if damage == "origin":
        table.origin = np.array(["true", "guessed", "true"])
    write_table(path, table)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "text":
        path.write_text("key,label\n000000/00000000,1\n" * 100)
    elif damage == "foreign":
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [[], [0], [15], [4, 5], [0, 4, 6, 12, 13], list(range(16)), [5], [1, 2, 13]])
def test_merging_puts_every_label_at_its_index(shards: Shards, tmp_path: Path, indices: list[int]) -> None:
    merged = merge(table_of(shards, indices), shards, tmp_path / "new folder" / "labels.bin")
    expected = [LABELS[index] if index in indices else -1 for index in range(16)]
    assert merged.tolist() == expected and merged.dtype == np.int32
    assert open_merged(tmp_path / "new folder" / "labels.bin").tolist() == expected
    assert [file.name for file in (tmp_path / "new folder").iterdir()] == ["labels.bin"]


def test_a_table_of_another_data_set_is_refused(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made for other data"):
        merge(table_of(shards, [0], fingerprint="0123"), shards, tmp_path / "labels.bin")
    assert not (tmp_path / "labels.bin").exists()


@pytest.mark.parametrize("key", ["000000/00000099", "000009/00000001", "nonsense", "000003/00000000"])
def test_an_unknown_key_is_named(shards: Shards, tmp_path: Path, key: str) -> None:
    table = table_of(shards, [0, 4, 9])
    table.keys[1] = key
    with pytest.raises(UserError, match=re.escape(f"{key!r}, which ")):
        merge(table, shards, tmp_path / "labels.bin")
    assert not list(tmp_path.glob("*labels.bin*"))


@pytest.mark.parametrize("indices", [[3, 2], [9, 1], [0, 0], [0, 9, 4], [4, 4, 9], [1, 13, 12]])
def test_a_table_out_of_order_or_with_a_key_twice_is_refused(
    shards: Shards, tmp_path: Path, indices: list[int]
) -> None:
    with pytest.raises(UserError, match="not in index order, or names a sample twice, at '0000"):
        merge(table_of(shards, indices), shards, tmp_path / "labels.bin")
