import json
from pathlib import Path

import pytest

from cluster_jobs.core.errors import UserError
from cluster_jobs.training.frozen_config import check_facts


def test_facts_of_a_run_must_stay_and_new_ones_may_come(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    check_facts(path, {"data": 1}, "other data")  # no run yet
    path.write_text(json.dumps({"data": 1, "gone": 0}))
    check_facts(path, {"data": 1, "new": 2}, "other data")
    with pytest.raises(UserError, match=r"was started with other data \(data differ\); choose a new run.dir"):
        check_facts(path, {"data": 2, "new": 2}, "other data")
