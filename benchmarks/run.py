"""Run benchmarks: `python benchmarks/run.py [--quick] [--json FILE] [throughput isolation …]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib import import_module
from pathlib import Path

import attrs
from common import Figure
from server import running

TOPICS = (
    *("inside", "throughput", "isolation", "outbox", "backlog", "api", "durable", "django"),
    "celery",
)
# Topics whose names would shadow packages.
MODULES = {"django": "django_adapter", "celery": "celery_adapter"}


def show(figure: Figure) -> None:
    """Print a figure."""
    mark = "✓" if figure.met else "✗"
    print(f"{mark} {figure.name}: {figure.ratio:.2f} (target {figure.target})")
    print(
        f"    {figure.subject:,.1f} {figure.unit} against {figure.peer:,.1f} {figure.unit}"
        f" for {figure.against}{'; ' if figure.note else ''}{figure.note}",
        flush=True,
    )


def main() -> None:
    """Run the given topics, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument(
        "--quick", action="store_true", help="use small sizes, to test the benchmarks"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    unknown = set(arguments.topics) - set(TOPICS)
    if unknown:
        parser.error(f"unknown topic {', '.join(sorted(unknown))}; topics are {', '.join(TOPICS)}")
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors."
        " Ratios are medians of alternating runs of subject and peer.\n"
    )
    figures: list[Figure] = []
    with running(addresses=20) as port:
        for topic in arguments.topics or TOPICS:
            for figure in import_module(MODULES.get(topic, topic)).run(port, quick=arguments.quick):
                show(figure)
                figures.append(figure)
    if arguments.json:
        told = [{**attrs.asdict(figure), "met": figure.met} for figure in figures]
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
