import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.data.stores.base import child, is_remote
from cluster_jobs.data.stores.remote import beside, redacted


def test_a_url_is_remote_and_every_path_is_local() -> None:
    assert all(map(is_remote, ("s3://b/k", "gs://b", "hf://datasets/u/r", "http://h/p", "https://h", "what+ever://x")))
    assert not any(map(is_remote, ("data", "/data/a b", "./s3:/b", "a/b://c", "C:/data", "s3:", "://x", "")))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("data", "data/train"),
        ("/a b/é=ü/", "/a b/é=ü/train"),
        ("s3://bucket", "s3://bucket/train"),
        ("s3://bucket/a//b?c#d/", "s3://bucket/a//b?c#d/train"),
        ("https://host/data/", "https://host/data/train"),
        ("https://host/data?token=a/b", "https://host/data/train?token=a/b"),
    ],
)
def test_a_child_lies_below_its_location(location: str, expected: str) -> None:
    assert child(location, "train") == expected


def test_names_are_quoted_in_web_addresses_and_nowhere_else() -> None:
    assert child("http://h/a%20b", "50% #1?.tar") == "http://h/a%20b/50%25%20%231%3F.tar"
    assert child("s3://b", "50% #1?.tar") == "s3://b/50% #1?.tar"


def test_a_shard_may_lie_beside_its_index_but_on_no_other_server() -> None:
    assert beside("s3://bucket/index/train", "../../tars/0.tar") == "s3://bucket/tars/0.tar"
    assert beside("http://h:8/a/b?t=1", "../0.tar") == "http://h:8/a/0.tar?t=1"
    for name in ("../../../0.tar", "../a/../../../../0.tar"):
        with pytest.raises(UserError, match="outside of the server or bucket"):
            beside("s3://bucket/a/b", name)


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    assert redacted("https://me:secret@host:8/a/b?token=secret") == "https://host:8/a/b"
    assert redacted("s3://bucket/a?b@c") == "s3://bucket/a?b@c"
