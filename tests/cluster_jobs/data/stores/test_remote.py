"""Shards over HTTP and S3 against real servers on 127.0.0.1, that answer badly where the test asks for it."""

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from cluster_jobs.core.errors import UnreadableShard, UserError
from cluster_jobs.data.images import encode_png
from cluster_jobs.data.shard_writer import Sample, finish_index, index_shard, write_index_part, write_shard
from cluster_jobs.data.shards import Shards
from cluster_jobs.data.stores import remote
from cluster_jobs.data.stores.base import child
from cluster_jobs.data.stream import Batch, Stream, scan
from tests.cluster_jobs.data.toy_reader import READER, digest
from tests.cluster_jobs.tiny import tiny_images, write_tiny_shards
from tests.processes import fork
from tests.servers import FAULTS, Server, files, proxy, serving

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[str, int]]:
    """Where an S3-compatible server listens."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def served(request: pytest.FixtureRequest, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """The tiny shards behind a server that is "http" or "s3", every request of which fails twice: (server, URL)."""
    if request.param == "http":
        with serving(files(tiny_directory.parent), FAULTS) as server:
            yield server, child(server.url, tiny_directory.name)
        return
    host, port = request.getfixturevalue("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    s3.create_bucket(Bucket="data")
    for path in tiny_directory.iterdir():
        s3.upload_file(str(path), "data", f"tiny/{path.name}")
    with serving(proxy(host, port), FAULTS) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server, "s3://data/tiny"


both = pytest.mark.parametrize("served", ["http", "s3"], indirect=True)


def kinds_met(server: Server) -> set[str]:
    return {kind for kind, count in server.met.items() if count}


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for ours, theirs in zip(first, second, strict=True):
        assert ours.position == theirs.position
        for name in ("indices", "images"):
            assert np.array_equal(getattr(ours, name).numpy(), getattr(theirs, name).numpy()), name


# --- the same as local ones


@both
@pytest.mark.parametrize("window", ["1", "2", "all"])
def test_the_stream_is_that_of_local_shards_whatever_the_server_does(served, window: str, tiny: Shards) -> None:
    server, url = served
    shards = Shards(url)
    assert shards.keys() == tiny.keys() and shards.fingerprint == tiny.fingerprint
    assert np.array_equal(shards.hidden_labels(), tiny.hidden_labels())
    both = [Stream(one, seed=3, batch=4, window=window) for one in (shards, tiny)]
    assert_same(*(list(itertools.islice(one.batches(8), 12)) for one in both))
    assert kinds_met(server) == set(FAULTS)


@both
def test_a_scan_a_subset_and_annotations_are_those_of_local_shards(served, tiny: Shards) -> None:
    shards = Shards(served[1])
    assert_same(list(scan(shards, 4)), list(scan(tiny, 4)))
    few = np.array([1, 2, 5, 9, 20])
    both = [Stream(one, seed=0, batch=2, subset=few) for one in (shards, tiny)]
    assert_same(*(list(itertools.islice(one.batches(0), 6)) for one in both))
    assert [shards.annotation(i) for i in range(21)] == [None] * 21
    assert [shards.encoded(i) for i in range(21)] == [tiny.encoded(i) for i in range(21)]


@pytest.mark.slow
@both
def test_reader_processes_see_the_same_over_the_network(served, tiny: Shards) -> None:
    both = [Stream(Shards(place), seed=5, batch=4, window="2", workers=2) for place in (served[1], tiny.directory)]
    assert digest(both[0], 9) == digest(both[1], 9)


def test_a_silent_server_is_given_up_and_asked_again(tiny_directory: Path, tiny: Shards, monkeypatch) -> None:
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.3)
    with serving(files(tiny_directory), ["stalled"], times=1, only=r"GET .*tar") as server:
        assert np.array_equal(Shards(server.url).image(0), tiny.image(0))
        assert server.met["stalled"] == 1


def test_names_with_spaces_accents_and_marks_are_found(tmp_path: Path) -> None:
    name = "a b é=ü 50% #1"
    write_tiny_shards(tmp_path / "www" / name / "train", (2, 1))
    with serving(files(tmp_path / "www")) as server:
        shards = Shards(child(child(server.url, name), "train") + "?token=1")
        assert np.array_equal(shards.image(2), tiny_images(3)[2])


def test_shards_that_lie_beside_their_index_are_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "www" / "theirs", 0, [Sample("x", encode_png(tiny_images()[0]))])
    tar, ours = tmp_path / "www" / "theirs" / "000000.tar", tmp_path / "www" / "ours"
    write_index_part(ours, 0, index_shard(tar))
    finish_index(ours, 1, classes=[], size=8, mode="L", files=["../theirs/000000.tar"])
    with serving(files(tmp_path / "www")) as server:
        assert np.array_equal(Shards(f"{server.url}/ours").image(0), tiny_images()[0])


def test_an_index_cannot_have_a_local_file_read(tmp_path: Path) -> None:
    directory = write_tiny_shards(tmp_path / "www", (2,))
    index = json.loads((directory / "index.json").read_text())
    index["shards"][0]["name"] = "/etc/passwd"
    (directory / "index.json").write_text(json.dumps(index))
    with serving(files(directory)) as server, pytest.raises(UserError, match="'/etc/passwd' by a path of another mach"):
        Shards(server.url)


# --- what cannot be read is one clear line and exit code 2


def refusal(tmp_path: Path, url: str, *words: str) -> str:
    """The one line with which a process refuses a location."""
    ended = fork(tmp_path / "log", READER, f"data={url}", *words, env={"SHARD_TRIES": "2"})
    assert ended.code == 2, ended.output
    lines = ended.output.strip().splitlines()
    assert len(lines) == 1, ended.output
    return lines[0]


@pytest.mark.slow
def test_what_cannot_be_opened_is_one_line_and_exit_code_2(tiny_directory: Path, tmp_path: Path) -> None:
    with serving(files(tiny_directory.parent, forbidden="secret")) as server:
        assert f"{server.url}/nowhere' holds no index.json" in refusal(tmp_path, f"{server.url}/nowhere")
        line = refusal(tmp_path, f"{server.url}/secret?token=hidden")
        assert f"{server.url}/secret/index.json: HTTP 403 Forbidden" in line and "hidden" not in line
        assert server.requests["GET /secret/index.json?token=hidden "] == 1
    line = refusal(tmp_path, server.url)  # nobody listens there any more
    assert f"{server.url}/index.json: gave up after 2 tries in" in line and "Cannot connect to host" in line
    line = refusal(tmp_path, "ftp://host/data")
    assert "unknown scheme ftp://, expected a local path or http://, https://, s3://" in line


@pytest.mark.parametrize(("scheme", "package", "extra"), [("s3", "s3fs", "remote"), ("gs", "gcsfs", "gs")])
def test_a_missing_package_is_named_with_its_extra(
    scheme: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)  # as in a fresh process
    monkeypatch.setitem(sys.modules, package, None)  # the import fails as if it were not installed
    with pytest.raises(UserError, match=rf"a package that is missing: pip install 'label-efficient-gan\[{extra}\]'"):
        Shards(f"{scheme}://bucket/data")


def test_a_directory_above_the_shards_is_answered_with_a_hint(tmp_path: Path) -> None:
    write_tiny_shards(tmp_path / "www" / "train", (1,))
    with (
        serving(files(tmp_path / "www")) as server,
        pytest.raises(UserError, match=r"did you mean 'http://.*/train'\?"),
    ):
        Shards(server.url)


def test_a_server_without_ranges_is_refused(tiny_directory: Path) -> None:
    refused = pytest.raises(UserError, match="labels.bin: the server ignores ranges and sends whole files")
    with serving(files(tiny_directory, ranges=False)) as server, refused:
        Shards(server.url)


@pytest.mark.parametrize("name", ["index.bin", "keys.bin", "labels.bin"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_damaged_index_is_refused_by_name(name: str, how: str, tiny_directory: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_directory, tmp_path / "www")) / name
    content = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(content[:-1])
    with serving(files(tmp_path / "www")) as server, pytest.raises(UserError, match=rf"{name}: damaged index"):
        Shards(server.url).hidden_labels()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_missing_or_cut_is_one_line_when_it_is_read(
    workers: int, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARD_TRIES", "2")
    directory = Path(shutil.copytree(tiny_directory, tmp_path / "www"))
    with serving(files(directory)) as server:
        reader = Stream(Shards(server.url), seed=0, batch=21, workers=workers, damaged="replace")
        (directory / "000001.tar").write_bytes((directory / "000001.tar").read_bytes()[:700])
        with pytest.raises(UnreadableShard, match=r"000001\.tar \(bytes 0 to 4096\): gave up .* 700 of 4096 byt"):
            next(reader.batches(0))
        (directory / "000001.tar").unlink()
        with pytest.raises(UnreadableShard, match=r"000001\.tar: the index names this file, but it is missing$"):
            next(reader.batches(0))


@pytest.mark.parametrize("served", ["s3"], indirect=True)
def test_a_bucket_that_is_not_there_and_one_that_refuses_are_one_line(served) -> None:
    server, _ = served
    with pytest.raises(UserError, match="'s3://nobodys/tiny' holds no index.json"):
        Shards("s3://nobodys/tiny")
    server.faults, server.times, server.only = ("403",), 99, "index.json"
    with pytest.raises(UnreadableShard, match=r"^s3://data/tiny/index\.json: HTTP 403 Forbidden$"):
        Shards("s3://data/tiny")
