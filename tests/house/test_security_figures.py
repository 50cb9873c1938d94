"""SECURITY.md: every bound that it states is the code's, and every bound of the code is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "thorn_core"
ROW = re.compile(
    r"^\| (?P<bound>[^|]+) \| (?P<figure>[^|]+) \| `(?P<path>[\w.]+(?:\(\w+\))?)` \|$", re.MULTILINE
)
ROWS = [match.groups() for match in ROW.finditer((ROOT / "SECURITY.md").read_text("utf-8"))]
UNITS = {
    "": 1,
    "s": 1,
    "min": 60,
    "h": 3600,
    "day": 86400,
    "days": 86400,
    "KiB": 1024,
    "MiB": 1024**2,
}
# Constants of these names bound something that comes from outside.
BOUND = re.compile(r"LIMIT|MOST_|LONGEST|^HEADER_|_CACHE$|^(KEPT|WAITING|THREADS)")
# They bound nothing that others choose: the demo's, the tests', and what a person looks at.
ELSEWHERE = {"cli", "testing", "portal"}


def value_of(path):
    """The value that a dotted path below `thorn_core` leads to: `settings.Settings.lease`."""
    path, _, argument = path.removesuffix(")").partition("(")
    names = path.split(".")
    found = importlib.import_module("thorn_core")
    for number, name in enumerate(names):
        module = ".".join(["thorn_core", *names[: number + 1]])
        if inspect.ismodule(found) and not hasattr(found, name):
            importlib.import_module(module)
        found = default_of(found, name)
    return inspect.signature(found).parameters[argument].default if argument else found


def default_of(found, name):
    if inspect.isclass(found) and attrs.has(found) and name in attrs.fields_dict(found):
        default = attrs.fields_dict(found)[name].default
        return default.factory() if isinstance(default, attrs.Factory) else default
    return getattr(found, name)


def stated(figure):
    """The number or numbers that a figure says: `64 KiB` is 65536."""
    if figure.startswith("1/"):
        return int(figure.removeprefix("1/"))
    if " to " in figure:
        return tuple(map(stated, figure.split(" to ")))
    if figure.endswith("%"):
        return tuple(float(part.removesuffix(" %")) / 100 for part in figure.split(", "))
    number, _, unit = figure.partition(" ")
    return float(number.replace(",", "")) * UNITS[unit]


def plain(value):
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, range):
        return (value.start, value.stop - 1)
    return tuple(value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("bound", "figure", "path"), ROWS, ids=[path for *_, path in ROWS])
def test_a_stated_bound_is_the_codes(bound, figure, path):
    assert stated(figure) == plain(value_of(path)), f"SECURITY.md says of {bound!r}: {figure}"


def test_every_row_is_read():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    headings = [line for line in rows if line.startswith(("| bound |", "| --- |"))]
    assert len(ROWS) == len(rows) - len(headings) > 80


def test_a_wrong_figure_is_seen():
    assert stated("15 s") == 15
    assert stated("5 min") == 300
    assert stated("10,000") == 10_000
    assert stated("64 KiB") == 65_536
    assert stated("50 %, 90 %") == (0.5, 0.9)
    assert stated("16 s") != plain(value_of("settings.Settings.event_timeout"))
    with pytest.raises(AttributeError):
        value_of("settings.Settings.event_timout")


def constants():
    """Module, line and name of each constant that bounds something."""
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).with_suffix("")
        if place.parts[0] in ELSEWHERE:
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Name) and BOUND.search(target.id):
                    yield ".".join([*place.parts, target.id])


def test_every_bound_of_the_code_is_stated():
    told = {path.partition("(")[0] for *_, path in ROWS}
    values = {id_of(path) for path in told}
    missing = [
        path
        for path in constants()
        if path not in told
        and id_of(path) not in values
        # A statement's text bounds nothing.
        and not isinstance(value_of(path), str)
    ]
    assert missing == [], "say these in SECURITY.md"


def id_of(path):
    """The last two names of a path: packages re-export what their modules hold."""
    names = path.split(".")
    return names[0], names[-1]
