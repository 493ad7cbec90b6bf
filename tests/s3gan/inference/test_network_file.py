"""The heads of a discriminator in network.json."""

from typing import Any

import pytest

from s3gan.inference.network_file import heads_from_json, heads_to_json
from s3gan.networks import HeadPlan

RECORDS: dict[str, tuple[dict[str, Any], HeadPlan]] = {
    "supervised": (
        {"projection": True, "rotation": False, "predictor": False, "soft_prediction": False},
        HeadPlan(),
    ),
    "s3gan_co": (
        {"projection": True, "rotation": True, "predictor": True, "soft_prediction": True},
        HeadPlan(auxiliary={"rotation": 4, "predictor": 7}, soft_prediction=True),
    ),
    "another head": (
        {"projection": False, "rotation": True, "predictor": False, "soft_prediction": False, "codes": 12},
        HeadPlan(projection=False, auxiliary={"rotation": 4, "codes": 12}),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_heads_are_recorded_by_name_and_built_again_for_the_runs_classes(name: str) -> None:
    record, plan = RECORDS[name]
    assert heads_to_json(plan) == record
    assert heads_from_json(record, classes=7) == plan
