"""Links between the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = "https://github.com/thorn-webhooks/thorn"
# Package indexes show these pages, where relative links lead nowhere.
PUBLISHED = [ROOT / "README.md", *ROOT.glob("adapters/*/README.md")]
DOCUMENTS = [
    *PUBLISHED,
    *(path for path in ROOT.glob("*.md") if path not in PUBLISHED),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/*/*.md"),
]
OF_OURS = re.compile(
    rf"(?:{SITE}/(?:blob|tree)|https://raw\.githubusercontent\.com/thorn-webhooks/thorn)/main/(.*)"
)


def targets(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
    return [
        *re.findall(r"\]\(([^)#\s]+)[^)]*\)", text),
        *re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE),
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in targets(path):
        ours = OF_OURS.fullmatch(target)
        if ours:
            assert (ROOT / ours[1]).exists(), target
        elif not target.startswith("https://"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_published_pages_are_absolute(path):
    found = targets(path)
    assert found
    assert all(target.startswith("https://") for target in found)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: str(path.relative_to(ROOT)))
def test_reference_links_are_defined_and_used(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    assert used == defined
