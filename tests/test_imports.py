"""Who may import whom. The rules are in the words of the tests; the imports are read from the source, not executed."""

import ast
from graphlib import CycleError, TopologicalSorter
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
ROOMS = {  # sub-package → sub-packages of its own package that it may import; commands may import all of them
    "cluster_jobs.core": (),
    "cluster_jobs.cli": ("core",),
    "cluster_jobs.data": ("core", "data.stores"),
    "cluster_jobs.data.stores": ("core",),
    "cluster_jobs.diagnostics": ("cli", "core", "data", "data.stores"),
    "cluster_jobs.distributed": ("cli", "core"),
    "cluster_jobs.mixing": ("core", "data", "data.stores", "reporting"),
    "cluster_jobs.packing": ("core", "data", "data.stores"),
    "cluster_jobs.pipelines": ("cli", "core"),
    "cluster_jobs.reporting": ("core",),
    "cluster_jobs.slurm": ("cli", "core", "pipelines"),
    "cluster_jobs.training": ("cli", "core", "data", "distributed", "reporting"),
    "cluster_jobs.turing_test": ("core", "data", "reporting"),
    "cluster_jobs.verification": ("core", "data"),
    "selfsup.encoders": (),
    "selfsup.pretext": ("encoders",),
    "selfsup.labelling": ("encoders", "pretext"),
    "s3gan.augmentation": (),
    "s3gan.methods": (),
    "s3gan.metrics": (),
    "s3gan.networks": (),
    "s3gan.losses": ("augmentation",),
    "s3gan.auxiliary": ("losses", "networks"),
    "s3gan.inference": ("networks",),
    "s3gan.comparison": ("metrics",),
    "s3gan.mixture_study": ("metrics",),
    "s3gan.pictures": ("inference", "metrics", "networks"),
    "s3gan.pools": ("inference", "networks"),
    "s3gan.evaluation": ("inference", "metrics", "pictures"),
    "s3gan.training": (
        *("augmentation", "auxiliary", "inference", "losses", "methods", "metrics", "networks", "pictures"),
    ),
    "simgan.conventions": (),
    "simgan.networks": (),
    "simgan.estimators": (),
    "simgan.readers": ("conventions",),
    "simgan.simulators": ("conventions",),
    "simgan.tasks": ("conventions", "estimators"),
    "simgan.training": ("networks", "tasks"),
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


def owner(name: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name or None


def room_of(module: str) -> str:
    """The sub-package that a module lies in, or is; the package of a command."""
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


MODULES_IMPORTED = {
    module: {target for name in names if (target := owner(name)) and target != module}
    for module, names in IMPORTS.items()
}


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


def test_a_module_imports_only_the_siblings_it_may() -> None:
    forbidden = set()
    for module, names in IMPORTS.items():
        own = module.partition(".")[0]
        allowed = (own, *SIBLINGS[own])
        ours = {name for name in names if name.partition(".")[0] in (*PACKAGES, "tests")}
        forbidden |= {(module, name) for name in ours if not any(within(name, prefix) for prefix in allowed)}
    assert forbidden == set()


def test_nobody_imports_an_entry_point() -> None:
    forbidden = {
        (module, name)
        for module, names in IMPORTS.items()
        for name in names
        if any(within(name, entry) for entry in ENTRY_POINTS)
    }
    assert forbidden == set()


def test_a_sub_package_imports_only_those_of_its_own_package_that_the_table_allows() -> None:
    assert {room_of(module) for module in FILES} - set(ROOMS) - set(PACKAGES) == {f"{each}.conf" for each in PACKAGES}
    forbidden = set()
    for module, targets in MODULES_IMPORTED.items():
        room = room_of(module)
        if room in ROOMS:
            package = room.partition(".")[0]
            allowed = {room, *(f"{package}.{name}" for name in ROOMS[room])}
            own = {target for target in targets if within(target, package)}
            forbidden |= {(module, target) for target in own if room_of(target) not in allowed}
    assert forbidden == set()


def test_the_table_of_sub_packages_and_the_imports_of_modules_have_no_circle() -> None:
    rooms = {room: {f"{room.partition('.')[0]}.{name}" for name in names} for room, names in ROOMS.items()}
    TopologicalSorter(rooms).prepare()
    TopologicalSorter(MODULES_IMPORTED).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**MODULES_IMPORTED, "cluster_jobs.core.errors": {"cluster_jobs.core.files"}}).prepare()


def test_hydra_appears_in_entry_points_and_config_modules_only() -> None:
    users = {module for module, names in IMPORTS.items() if any(within(name, "hydra") for name in names)}
    assert {user for user in users - ENTRY_POINTS if user.rpartition(".")[2] != "config"} == set()
    assert "cluster_jobs.cli.config" in users


def test_faiss_appears_in_the_clustering_only() -> None:
    users = {module for module, names in IMPORTS.items() if any(within(name, "faiss") for name in names)}
    assert users == {"selfsup.labelling.clustering"}
