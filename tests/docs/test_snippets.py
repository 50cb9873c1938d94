"""The README's and the guides' snippets do what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = spec_from_file_location("snippets", ROOT / "docs" / "snippets.py")
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)
SNIPPETS = {name: (language, text) for name, language, text in _module.snippets()}


@pytest.mark.parametrize("name", [n for n, (lang, _) in SNIPPETS.items() if lang == "python"])
def test_a_python_snippet_runs(name, tmp_path):
    file = tmp_path / f"{name}.py"
    file.write_text(SNIPPETS[name][1], "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [n for n, (lang, _) in SNIPPETS.items() if lang == "javascript"])
def test_a_javascript_snippet_runs(name, tmp_path):
    node = shutil.which("node")
    if node is None:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), "node is required here"
        pytest.skip("node isn't installed")
    file = tmp_path / f"{name}.mjs"
    file.write_text(SNIPPETS[name][1], "utf-8")
    done = subprocess.run([node, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_guide_has_a_snippet_that_runs():
    told = {name.rpartition("_")[0] for name in SNIPPETS}
    guides = {path.stem.lower() for path in _module.SOURCES}
    assert guides - told == set()


def test_every_setting_is_in_the_guide():
    import attrs

    from thorn_core import Settings

    guide = (ROOT / "docs" / "settings.md").read_text("utf-8")
    missing = [f.name for f in attrs.fields(Settings) if f"`{f.name}`" not in guide]
    assert missing == []
