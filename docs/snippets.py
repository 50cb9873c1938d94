"""The runnable snippets of the README and the guides, as files.

`python docs/snippets.py DIRECTORY` writes each block marked `<!-- run -->` into a file there, for
the type checker; the tests run them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SUFFIXES = {"python": ".py", "javascript": ".mjs"}
_BLOCK = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets() -> Iterator[tuple[str, str, str]]:
    """Name (file and line), language and text of each runnable block."""
    for source in SOURCES:
        text = source.read_text("utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            yield f"{source.stem.lower()}_{line}", match[1], match[2]


def main(directory: str) -> None:
    """Write the blocks into files."""
    for name, language, text in snippets():
        Path(directory, name + SUFFIXES[language]).write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
