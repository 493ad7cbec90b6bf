"""Who may import whom. The rules are in the words of the tests; the imports are read from the source, not executed."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("cluster_jobs", "selfsup", "s3gan", "simgan")
SIBLINGS = {  # package → prefixes of the sibling modules that it may import
    "cluster_jobs": (),
    "selfsup": ("cluster_jobs",),
    "s3gan": ("cluster_jobs", "selfsup"),
    "simgan": ("cluster_jobs", "selfsup.encoders", "s3gan.metrics"),
}


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Every module that a source imports, anywhere in it; ``from a import b`` counts as ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: (1 if is_package else 0) - node.level or None]
                base = ".".join([*parents, base] if base else parents)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def runs_as_a_command(source: str) -> bool:
    tests = [ast.unparse(node.test) for node in ast.parse(source).body if isinstance(node, ast.If)]
    return "__name__ == '__main__'" in tests


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


FILES = {module_name(file): file for package in PACKAGES for file in sorted((REPOSITORY / package).rglob("*.py"))}
SOURCES = {module: file.read_text() for module, file in FILES.items()}
IMPORTS = {module: imports(source, module, FILES[module].name == "__init__.py") for module, source in SOURCES.items()}
ENTRY_POINTS = {module for module, source in SOURCES.items() if runs_as_a_command(source)}


def test_the_reader_of_imports_sees_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from .e import g\n    from .. import h\n    from . import i\n"
    assert imports(source, "p.q.r") == {"a.b", "c.d", "p.q.e.g", "p.h", "p.q.i"}
    assert imports("from . import x", "p.q", is_package=True) == {"p.q.x"}


def test_the_packages_and_their_commands_are_found() -> None:
    assert {module.partition(".")[0] for module in FILES} == set(PACKAGES)
    commands = "cluster_jobs.pack cluster_jobs.submit cluster_jobs.report simgan.pack simgan.train simgan.refine"
    commands += (
        " simgan.evaluate selfsup.pretrain selfsup.label selfsup.probe s3gan.train s3gan.generate s3gan.evaluate"
    )
    assert set(commands.split()) <= ENTRY_POINTS


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_the_siblings_it_may(module: str) -> None:
    own = module.partition(".")[0]
    allowed = (own, *SIBLINGS[own])
    ours = {name for name in IMPORTS[module] if name.partition(".")[0] in (*PACKAGES, "tests")}
    assert {name for name in ours if not any(within(name, prefix) for prefix in allowed)} == set()


@pytest.mark.parametrize("module", FILES)
def test_nobody_imports_an_entry_point(module: str) -> None:
    assert {name for name in IMPORTS[module] if any(within(name, entry) for entry in ENTRY_POINTS)} == set()


def test_hydra_appears_in_entry_points_and_config_modules_only() -> None:
    users = {module for module, names in IMPORTS.items() if any(within(name, "hydra") for name in names)}
    assert {user for user in users - ENTRY_POINTS if user.rpartition(".")[2] != "config"} == set()
    assert "cluster_jobs.cli.config" in users


def test_faiss_appears_in_the_clustering_only() -> None:
    users = {module for module, names in IMPORTS.items() if any(within(name, "faiss") for name in names)}
    assert users == {"selfsup.labelling.clustering"}
