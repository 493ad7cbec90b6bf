"""Packages and GPUs as they might be installed, and this environment as it is."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster_jobs.diagnostics.software import CONSTRAINTS, Gpu, device_files, faiss, gpus, packages, read_pins, software

NEEDED = ["numpy>=2.0", "torch>=2.6", 'pytest>=8; extra == "dev"']
PINS = {"numpy": "2.4.6", "torch": "2.13.0"}
H100 = Gpu("H100", 79.6, (9, 0))


def levels(versions: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(found.level, found.subject) for found in packages(NEEDED, versions.get, PINS)]


def test_the_tested_versions_are_fine_whatever_build_of_torch_it_is() -> None:
    assert levels({"numpy": "2.4.6", "torch": "2.13.0+cu129"}) == [("ok", "packages")]


def test_another_version_than_the_tested_one_is_a_warning_that_names_both() -> None:
    (found,) = packages(NEEDED, {"numpy": "2.3.0", "torch": "2.13.0"}.get, PINS)
    assert found.level == "warn" and "numpy 2.3.0 (tested 2.4.6)" in found.finding and "torch" not in found.finding


def test_a_missing_and_a_too_old_package_fail_with_the_command_that_helps() -> None:
    assert levels({"torch": "2.5.1"}) == [("fail", "numpy"), ("fail", "torch")]
    missing, old = packages(NEEDED, {"torch": "2.5.1"}.get, PINS)
    assert (
        missing.finding == "not installed" and "pip install --constraint constraints.txt 'numpy>=2.0'" in missing.remedy
    )
    assert old.finding == "2.5.1, but >=2.6 is needed"


def test_the_pins_are_read_from_the_constraints_that_make_installs_with() -> None:
    pins = read_pins(CONSTRAINTS.read_text())
    assert pins["torch"].startswith("2.") and "Jinja2" in pins and not any("#" in line for line in pins.values())


@pytest.mark.parametrize(
    ("versions", "level", "words"),
    [
        ({"faiss-cpu": "1.15"}, "ok", "faiss-cpu 1.15"),
        ({"faiss-gpu": "1.15"}, "ok", "faiss-gpu 1.15"),
        ({}, "warn", "method=kmeans cannot run"),
        ({"faiss-cpu": "1.15", "faiss-gpu": "1.15"}, "fail", "overwrite each other"),
    ],
)
def test_faiss_must_be_there_once(versions: Mapping[str, str], level: str, words: str) -> None:
    found = faiss(versions.get)
    assert found.level == level and words in found.finding


def test_this_environment_is_as_it_was_tested() -> None:
    assert {found.subject: found.level for found in software()} == {"python": "ok", "packages": "ok", "faiss": "ok"}


@pytest.mark.parametrize(
    ("cuda", "architectures", "seen", "bf16", "device_files", "expected"),
    [
        (None, [], [], False, 0, [("ok", "computes on the CPU")]),
        (None, [], [], False, 8, [("fail", "torch 2.13.0 was built without CUDA")]),
        ("12.9", [], [], False, 8, [("fail", "(CUDA 12.9) cannot use them with driver 470.1")]),
        ("12.9", ["sm_80", "sm_90"], [H100] * 8, True, 8, [("ok", "8 × H100, 80 GiB"), ("ok", "bf16 in hardware")]),
        ("12.9", ["sm_80"], [H100], True, 1, [("fail", "no kernels for compute capability (9, 0)"), ("ok", "bf16")]),
        ("12.9", ["sm_120a"], [H100], True, 1, [("fail", "no kernels"), ("ok", "bf16")]),
        ("12.9", ["sm_90"], [H100], True, 4, [("ok", "1 × H100"), ("ok", "1 of 4 visible"), ("ok", "bf16")]),
        ("12.9", ["sm_70"], [Gpu("V100", 16, (7, 0))], False, 1, [("ok", "V100"), ("warn", "no bf16 in hardware")]),
        (
            "12.9",
            ["sm_80", "sm_90"],
            [H100, Gpu("A100", 40, (8, 0))],
            True,
            2,
            [("ok", "1 × A100"), ("ok", "1 × H100"), ("warn", "2 different kinds"), ("ok", "bf16")],
        ),
    ],
)
def test_torch_the_driver_and_the_gpus_must_fit_together(
    cuda: str | None,
    architectures: list[str],
    seen: list[Gpu],
    bf16: bool,
    device_files: int,
    expected: list[tuple[str, str]],
) -> None:
    found = gpus("2.13.0", cuda, architectures, seen, bf16=bf16, device_files=device_files, driver="470.1")
    assert [item.level for item in found] == [level for level, _ in expected]
    for item, (_, words) in zip(found, expected, strict=True):
        assert words in item.finding
        assert bool(item.remedy) == (item.level != "ok")


def test_only_numbered_device_files_are_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert device_files(tmp_path) == 3
