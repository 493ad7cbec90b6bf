"""Directories as they might be mounted, and the read rate of real shards."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster_jobs.diagnostics.storage import mount_text, mounted, over_network, room, shards, shared

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /scratch rw shared:2 - lustre 10.0.0.1@o2ib:/scratch rw
31 22 0:31 / /home rw,relatime - nfs4 server:/home rw
32 31 0:32 / /home/local\\040disk rw - xfs /dev/sdb rw
33 22 0:33 / /mnt rw - fuse.sshfs me@there:/ rw
34 22 0:34 / /over rw - ext4 /dev/sdc rw
35 34 0:35 / /over rw - nfs server:/over rw
"""


@pytest.mark.parametrize(
    ("path", "point", "kind", "network"),
    [
        ("/scratch/me/data", "/scratch", "lustre", True),
        ("/scratchy", "/", "ext4", False),
        ("/home/me", "/home", "nfs4", True),
        ("/home/local disk/x", "/home/local disk", "xfs", False),
        ("/mnt", "/mnt", "fuse.sshfs", True),
        ("/over/x", "/over", "nfs", True),
    ],
)
def test_a_path_lies_on_the_file_system_of_its_longest_mount_point(
    path: str, point: str, kind: str, network: bool
) -> None:
    assert mounted(Path(path), MOUNTS) == (point, kind) and over_network(kind) == network


def test_the_mount_of_a_real_directory_is_the_one_that_df_names(tmp_path: Path) -> None:
    shown = subprocess.run(["df", "--output=target,fstype", tmp_path], capture_output=True, text=True, check=True)
    assert mounted(tmp_path) == tuple(shown.stdout.splitlines()[1].split())


def test_a_shared_directory_is_written_synced_and_left_as_it_was(tmp_path: Path) -> None:
    found = shared(tmp_path)
    assert [item.subject for item in found] == ["shared directory", "free disk"] and found[0].level == "ok"
    assert mount_text(tmp_path) in found[0].finding and list(tmp_path.iterdir()) == []


def test_a_shared_directory_that_is_a_file_or_missing_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "Not a directory"), (tmp_path / "none", "No such file")):
        (found,) = shared(path)
        assert found.level == "fail" and str(path) in found.finding and reason in found.finding and found.remedy


def test_the_room_is_what_the_disk_has(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert room(tmp_path).level == ("fail" if free < 2**30 else "warn" if free < 10 * 2**30 else "ok")
    assert room(Path("/proc")).level == "fail"  # a file system without room


def test_the_read_rate_of_real_shards_is_measured_over_at_most_one_epoch(tiny_directory: Path) -> None:
    rate, where = shards(str(tiny_directory), 5.0, 1)
    assert rate.subject == "read rate" and "over 21 images" in rate.finding
    assert float(rate.finding.split("reads ")[1].split(" images/s")[0].replace(",", "")) > 0
    assert where.level == "ok" and mount_text(tiny_directory) in where.finding


def test_shards_on_a_local_disk_are_a_warning_when_there_are_several_nodes(tiny_directory: Path) -> None:
    if over_network(mounted(tiny_directory)[1]):
        pytest.skip("the temporary directory is mounted over a network")
    assert shards(str(tiny_directory), 0.1, 2)[1].level == "warn"


def test_a_parent_of_train_is_read_and_other_directories_fail_in_words(tiny_directory: Path, tmp_path: Path) -> None:
    os.symlink(tiny_directory, tmp_path / "train")
    assert str(tmp_path / "train") in shards(str(tmp_path), 0.1, 1)[0].finding
    (found,) = shards(str(tmp_path / "none"), 0.1, 1)
    assert found.level == "fail" and "does not exist" in found.finding


def test_a_damaged_sample_fails_and_points_at_verify(tiny_directory: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_directory, tmp_path / "data"))
    content = bytearray((data / "000001.tar").read_bytes())
    content[512:560] = bytes(48)  # the first picture of the shard
    (data / "000001.tar").write_bytes(content)
    (found,) = shards(str(data), 5.0, 1)
    assert found.level == "fail" and "000001/00000007" in found.finding
    assert found.remedy.startswith("python -m cluster_jobs.verify data=")
