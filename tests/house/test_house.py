"""The house itself: which room imports which, and what belongs together."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import thorn_core

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "thorn_core"
# From the top down: a room imports from those below it only. `errors` is at the very bottom.
ROOMS = [
    *("cli", "api", "portal"),
    *("testing", "receiver"),
    *("app", "checks", "history", "subscribing", "removing", "replaying"),
    *("paging", "progress", "process"),
    *("sending", "models", "events", "send_options"),
    *("receipts", "current_app", "payload_schemas"),
    *("buffering", "dispatchers"),
    *("worker", "message_recipients", "static_subscribers", "subscriptions", "delivery"),
    *("plugins", "hookspecs", "stores", "ports", "transports", "unit_of_work", "signals"),
    *("periods", "latencies", "queries"),
    *("settings", "answers", "subscribers", "values", "codecs", "signatures", "recipients", "keys"),
    *("filters", "patterns", "retries"),
    *("spelling", "callables", "thorn_1", "errors"),
]
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


def imports(tree):
    """Imported module and whether at module level, those for type checkers left out."""

    def walk(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                if child.module == "thorn_core":
                    yield from ((f"thorn_core.{alias.name}", top) for alias in child.names)
                else:
                    yield child.module, top
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, top and not inside)

    return list(walk(tree, True))


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_from_those_below_it_only(path):
    room = room_of(path)
    assert room in ROOMS
    for module, _ in imports(ast.parse(path.read_text("utf-8"))):
        parts = module.split(".")
        if parts[0] == "thorn_core" and len(parts) > 1 and parts[1] != room:
            assert ROOMS.index(parts[1]) > ROOMS.index(room), module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_extras_are_imported_where_they_are_needed_and_when(path):
    for module, top in imports(ast.parse(path.read_text("utf-8"))):
        name = module.split(".")[0]
        if name in EXTRAS:
            assert room_of(path) in EXTRAS[name]
            whole = str(path.relative_to(SOURCE)) in WHOLE_FILES or name == "pytest"
            assert whole or not top, f"{module} is imported with the module"


ADAPTERS = sorted((ROOT / "adapters").glob("*/src/*/"))
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
                public = name in thorn_core.__all__ or name.split(".")[0] in PUBLIC
                assert not name or public, f"{path}: {module}"


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
