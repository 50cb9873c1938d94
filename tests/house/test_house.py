"""The house itself: which room imports which, and what belongs together."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import thorn_core

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "thorn_core"
# The rooms from the top down, in the sections of the design: each imports from those below it only,
# for types too. Protocols are below what implements them.
FACES = ("cli", "api", "portal", "testing", "receiver")
ENGINE = (
    *("app", "history", "subscribing", "removing", "replaying", "checks"),
    *("paging", "progress", "process"),
    *("sending", "models", "events", "send_options", "receipts", "current_app", "payload_schemas"),
    *("buffering", "dispatchers", "worker"),
    *("message_recipients", "static_subscribers", "subscriptions", "delivery"),
)
PORTS = ("plugins", "hookspecs", "stores", "transports", "ports", "signals")
VALUES = (
    *("queries", "periods", "latencies", "settings", "answers", "subscribers", "values", "codecs"),
    *("patterns", "filters", "retries", "signatures", "recipients", "keys", "spelling"),
    *("callables", "thorn_1", "errors"),
)
ROOMS = (*FACES, *ENGINE, *PORTS, *VALUES)
EXTRAS = {
    "aiohttp": set(),
    "httptools": {"transports"},
    "uvloop": {"worker"},
    "click": {"cli"},
    "rich": {"cli"},
    "cryptography": {"signatures"},
    "jsonschema": {"payload_schemas"},
    "pytest": {"testing"},
    "trustme": set(),
}
# Imported at module level, because the whole file is for it.
WHOLE_FILES = {"transports/fast.py", *(f"cli/{p.name}" for p in (SOURCE / "cli").glob("*.py"))}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree, *, types=True):
    """Imported module and whether at module level; those for type checkers too, or not."""

    def walk(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test) and not types:
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, "an import is absolute"
                yield from ((f"{child.module}.{alias.name}", top) for alias in child.names)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, top and not inside)

    return list(walk(tree, True))


def modules_of(package):
    """The modules of a package's folder, by name."""
    names = {
        path: ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        for path in package.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imported_modules(path, modules):
    """Which of these modules a file imports, for types too."""
    for name, _ in imports(ast.parse(path.read_text("utf-8"))):
        found = name if name in modules else name.rpartition(".")[0]
        if found in modules:
            yield found


def cycle_in(package):
    """Modules that import each other in a circle, for types too; None if none do."""
    modules = modules_of(package)
    graph = {
        name: {found for found in imported_modules(path, modules) if found != name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " imports ".join(reversed(error.args[1]))
    return None


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
MODULES = modules_of(SOURCE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_from_those_below_it_only(path):
    room = room_of(path)
    for module in imported_modules(path, MODULES):
        assert module != "thorn_core", "the public names are at the very top"
        other = module.split(".")[1]
        assert other == room or ROOMS.index(other) > ROOMS.index(room), module


def test_every_room_has_its_place():
    assert len(ROOMS) == len(set(ROOMS))
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_extras_are_imported_where_they_are_needed_and_when(path):
    for module, top in imports(ast.parse(path.read_text("utf-8")), types=False):
        name = module.split(".")[0]
        if name in EXTRAS:
            assert room_of(path) in EXTRAS[name]
            whole = str(path.relative_to(SOURCE)) in WHOLE_FILES or name == "pytest"
            assert whole or not top, f"{module} is imported with the module"


ADAPTERS = sorted((ROOT / "adapters").glob("*/src/*/"))


@pytest.mark.parametrize("package", [SOURCE, *ADAPTERS], ids=lambda path: path.name)
def test_no_modules_import_each_other(package):
    assert cycle_in(package) is None


# Of the core, beside the names of `thorn_core` itself.
PUBLIC = (
    "api",
    "checks",
    "cli",
    "keys",
    "models",
    "patterns",
    "periods",
    "portal",
    "ports",
    "recipients",
    "receiver",
    "signals",
    "signatures",
    "stores",
    "testing",
    "thorn_1",
)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_an_adapter_uses_the_public_names_of_the_core_only(adapter):
    for path in adapter.rglob("*.py"):
        for module, _ in imports(ast.parse(path.read_text("utf-8"))):
            package, _, name = module.partition(".")
            if package == "thorn_core":
                first = name.split(".")[0]
                assert not name or first in {*thorn_core.__all__, *PUBLIC}, f"{path}: {module}"
                assert not any(part.startswith("_") for part in name.split(".")), module


def test_the_version_is_the_same_everywhere():
    for file in (ROOT / "pyproject.toml", *ROOT.glob("adapters/*/pyproject.toml")):
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        assert project["version"] == thorn_core.__version__
        if find_spec(project["name"].replace("-", "_")):
            assert version(project["name"]) == thorn_core.__version__
        pins = [r for r in project["dependencies"] if r.startswith("thorn-core")]
        assert pins in ([], [f"thorn-core=={thorn_core.__version__}"])
    assert thorn_core.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_an_adapter_says_its_version_and_is_typed(adapter):
    assert f'__version__ = "{thorn_core.__version__}"' in (adapter / "__init__.py").read_text()
    assert (adapter / "py.typed").exists()


def test_every_public_name_is_there_and_has_a_docstring():
    assert sorted(thorn_core.__all__) == sorted(set(thorn_core.__all__))
    for name in thorn_core.__all__:
        assert getattr(thorn_core, name).__doc__, name


def test_the_package_is_marked_as_typed():
    assert (SOURCE / "py.typed").exists()


# The connections of SQLAlchemy: its dialects, its pool and its errors in one place.
LONGER = {"adapters/sqlalchemy/src/thorn_sqlalchemy/database.py"}


def test_rooms_stay_small():
    for path in sorted((*SOURCE.rglob("*.py"), *(ROOT / "adapters").glob("*/src/**/*.py"))):
        if str(path.relative_to(ROOT)) not in LONGER:
            assert len(path.read_text("utf-8").splitlines()) <= 500, path


@pytest.mark.parametrize(
    "file",
    [ROOT / "pyproject.toml", *ROOT.glob("adapters/*/pyproject.toml")],
    ids=lambda path: path.parent.name,
)
def test_a_package_carries_its_licence_readme_and_addresses(file):
    project = tomllib.loads(file.read_text("utf-8"))["project"]
    assert project["license-files"] == ["LICENSE"]
    licence = (file.parent / "LICENSE").read_text("utf-8")
    assert licence == (ROOT / "LICENSE").read_text("utf-8")
    assert (file.parent / project["readme"]).exists()
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} <= set(project["urls"])


def test_the_readme_opens_with_what_this_is_a_picture_and_the_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    title, sentence, picture, *_ = readme.split("\n\n")
    assert title == "# Thorn"
    assert sentence.startswith("Thorn is a Python library")
    assert sentence.count(". ") == 0
    assert picture.startswith("![")
    alone, checkout = re.findall(r"```console\n(.*?)\n```", readme, re.DOTALL)[:2]
    assert alone == "pip install 'thorn-core[cli,fast]' && thorn demo"
    first, second = checkout.splitlines()
    assert first.endswith(".venv/bin/nox -s demo")
    assert second == ".venv/bin/nox -s tests"
