"""docs/extend.md does what it says: its file and its entry make a method that trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3gan.toy_data import TINY, make_data, make_table

ROOT = Path(__file__).parents[2]
METHOD_FILE = re.compile(r"One new\s+file, `(?P<path>[^`]+)`:\n\n```python\n(?P<text>.*?)```", re.DOTALL)
ENTRY = re.compile(r"one entry in `(?P<path>[^`]+)`.*?```text\n(?P<line>.*?)```\n```text\n(?P<entry>.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_pages_method_is_added_by_its_file_and_its_entry_and_trains(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extend.md").read_text()
    code = tmp_path / "code"
    for package in ("cluster_jobs", "selfsup", "s3gan"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    method, entry = METHOD_FILE.search(page), ENTRY.search(page)
    assert method is not None and entry is not None
    assert not (code / method["path"]).exists()
    (code / method["path"]).write_text(method["text"])
    table = code / entry["path"]
    text = table.read_text()
    text = re.sub(r"^(from s3gan\.methods\.unlabelled .*\n)", rf"{entry['line']}\1", text, flags=re.MULTILINE)
    text = re.sub(r"^( +s3gan_co,\n)", rf"\1{entry['entry']}", text, flags=re.MULTILINE)
    table.write_text(text)

    labels = make_table(tmp_path / "truth.parquet", make_data(tmp_path / "data" / "train"))
    words = [f"data={tmp_path / 'data' / 'train'}", f"labels={labels}", f"run.dir={tmp_path / 'run'}", *TINY]
    command = [sys.executable, "-m", "s3gan.train", *words, "method=supervised_ss", "total_nimg=64"]
    ended = subprocess.run(
        command, cwd=code, env=os.environ | {"PYTHONPATH": str(code)}, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    assert "loss/rotation_d" in (tmp_path / "run" / "metrics.jsonl").read_text()
