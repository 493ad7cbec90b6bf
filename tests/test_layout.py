"""The layout of the packages: commands at the tops, sub-packages that say what they are for, nothing too large."""

import ast
from collections import Counter

from tests.test_imports import ENTRY_POINTS, FILES, PACKAGES, REPOSITORY

COMMANDS = {
    "cluster_jobs": "pack verify mix turing submit status logs cancel resubmit doctor report",
    "selfsup": "pretrain label features probe",
    "s3gan": "train generate export evaluate look compare mixtures",
    "simgan": "pack train refine evaluate compare",
}


def test_the_top_of_a_package_holds_its_commands_and_nothing_else() -> None:
    for package, names in COMMANDS.items():
        modules = {f"{package}.{name}" for name in names.split()}
        top = {module for module in FILES if module.rpartition(".")[0] == package}
        assert {module for module in top if FILES[module].name != "__init__.py"} == modules
        assert modules <= ENTRY_POINTS


def test_every_module_says_what_it_is_for() -> None:
    silent = {module for module, file in FILES.items() if not ast.get_docstring(ast.parse(file.read_text()))}
    assert silent == set()


def test_no_file_is_longer_than_350_lines_and_no_folder_holds_more_than_25_files() -> None:
    files = [*FILES.values(), *(REPOSITORY / "tests").rglob("*.py")]
    lengths = {str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
    folders = Counter(str(file.parent.relative_to(REPOSITORY)) for file in files)
    assert {name: count for name, count in folders.items() if count > 25} == {}


def test_no_sub_package_bears_the_name_of_a_command() -> None:
    for package in PACKAGES:
        folders = {path.name for path in (REPOSITORY / package).iterdir() if path.is_dir()}
        assert not folders & set(COMMANDS[package].split())


def test_the_loop_is_short_and_knows_no_key_of_a_method() -> None:
    source = (REPOSITORY / "cluster_jobs" / "training" / "loop.py").read_text()
    shared = {"total_nimg", "batch", "sample_nimg", "eval_nimg", "checkpoint_nimg"}
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config"
    }
    assert len(source.splitlines()) < 80 and used == shared
