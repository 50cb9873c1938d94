"""Sessions for development: `nox -s demo`, `tests`, `campaign`, `lint`, `types`, `docs` …"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "minimal", "lint", "types", "docs"]

ROOT = Path(__file__).resolve().parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
SUPPORTED = ("3.11", "3.12", "3.13")
EVERYTHING = (
    ".[cli,fast,ed25519,schema]",
    "./adapters/celery[cli,redis]",
    "./adapters/django[cli,rest,spectacular]",
    "./adapters/flask[async,cli,sqlalchemy]",
    "./adapters/sqlalchemy[asyncio,mysql,postgresql]",
)
# The oldest Python uses the oldest supported Django, the others use the newest.
OLDEST_DJANGO = "django==5.2.*"
# A process can set up Django only once, so these tests run in separate processes.
DJANGO = ("tests/django", "tests/rest")
# Tests that need brokers or database servers.
SERVERS = ("tests/celery", "tests/integration")
# Tests that the session `docs` runs.
DOCS = ("tests/docs",)
# Tests for Pythons between the first and the last one found.
CORE = ("tests/core", "tests/contract")
# A test that runs longer than the timeout fails. Idle test workers take over tests from busy ones.
# Tests often wait for processes and servers, so there are more test workers than the two CI cores.
PYTEST = ("pytest", "-q", "-n", "4", "--dist", "worksteal", "--timeout", "600")
# Tests that only a campaign runs, or with more examples.
CAMPAIGN = ("-m", "campaign or scaled or hypothesis", "--timeout", "7200")
PACKAGES = ("thorn_celery", "thorn_core", "thorn_flask", "thorn_sqlalchemy")


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def is_version(path: str, version: str) -> bool:
    """Return whether a command runs this Python; pyenv shims of inactive versions only fail."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [path, "-c", program], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return False
    return done.stdout.strip() == version


def interpreter(version: str) -> str | None:
    """Find an interpreter: the running one, on the PATH, or in pyenv; None if there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    found = shutil.which(f"python{version}")
    if found and is_version(found, version):
        return found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True):
        if is_version(str(path), version):
            return str(path)
    return None


FOUND = {version: path for version in SUPPORTED if (path := interpreter(version))}
if not FOUND:
    FOUND = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
PYTHONS = list(FOUND)
# The tests start hundreds of processes, which should not compile all packages each.
os.environ["UV_COMPILE_BYTECODE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Lets nox and uv find exactly these by name.
os.environ["PATH"] = os.pathsep.join(
    [*(str(Path(path).parent) for path in FOUND.values()), os.environ["PATH"]]
)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests on the first Python found, and all but server tests on the last one.

    The first one has the oldest supported Django, the last one the newest. Pythons in between run
    only the core's tests. The session `docs` tests the documentation. THORN_COVERAGE=1 measures
    coverage on the first Python, which takes longer.
    """
    oldest = session.python == PYTHONS[0]
    session.install(*EVERYTHING, *group("test"), OLDEST_DJANGO if oldest else "django>=5.2")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    others = tuple(f"--ignore={path}" for path in (*DJANGO, *DOCS))
    if not oldest:
        alone = ("-k", "not postgresql and not mariadb")
        if session.python != PYTHONS[-1]:
            session.run(*PYTEST, *CORE, *alone)
            return
        session.run(*PYTEST, *others, *(f"--ignore={path}" for path in SERVERS), *alone)
        session.run(*PYTEST, *DJANGO, *alone)
        return
    if os.environ.get("THORN_COVERAGE") != "1":
        session.run(*PYTEST, *others)
        session.run(*PYTEST, *DJANGO)
        return
    session.run("coverage", "erase")
    for paths in (others, DJANGO):
        session.run(
            "coverage", "run", "-m", *PYTEST, *paths,
            env={"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml")},
        )  # fmt: skip
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0])
def campaign(session: nox.Session) -> None:
    """Run long tests for an hour or more: killed processes, huge fan-outs, random searches.

    `-- short` takes a few minutes.
    """
    length, *more = session.posargs or ["long"]
    if length not in ("short", "long"):
        session.error(f"{length!r} is not a length of a campaign; use short or long")
    session.install(*EVERYTHING, *group("test"), OLDEST_DJANGO)
    for paths in ([f"--ignore={path}" for path in (*DJANGO, *DOCS)], DJANGO):
        session.run(*PYTEST, *CAMPAIGN, *paths, *more,
            env={"THORN_CAMPAIGN": length}, success_codes=[0, 5],  # 5: no test was selected
        )  # fmt: skip


@nox.session(python=PYTHONS)
def django(session: nox.Session) -> None:
    """Run the Django adapter's tests on the newest Django for this Python."""
    session.install(*EVERYTHING, *group("test"), "django>=5.2")
    session.run(*PYTEST, *(session.posargs or DJANGO))


@nox.session(python=PYTHONS[0])
def minimal(session: nox.Session) -> None:
    """Test the core without any extra."""
    session.install(".", "pytest>=8.2")
    session.run("pytest", "-q", "tests/minimal")


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check format and lint rules."""
    session.install(*group("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """Check the types of the source, and of the snippets in the README and the guides."""
    session.install(*EVERYTHING, *group("types"))
    session.run("mypy")
    directory = session.create_tmp()
    for old in Path(directory).glob("*"):
        old.unlink()
    session.run("python", "docs/snippets.py", directory)
    snippets = sorted(str(path) for path in Path(directory).glob("*.py"))
    for snippet in snippets:
        session.run("mypy", "--strict", snippet, silent=True)


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Run the docstrings' examples and the guides' snippets, and check the links."""
    session.install(*EVERYTHING, *group("test"))
    # Alembic's scripts can't be imported outside of Alembic.
    session.run(
        "pytest", "-q", "--doctest-modules", "--ignore-glob=*/migrations/env.py",
        "--pyargs", *PACKAGES,
    )  # fmt: skip
    session.run("pytest", "-q", "tests/docs")


@nox.session(python=PYTHONS[0])
def demo(session: nox.Session) -> None:
    """Run the demo."""
    session.install(".[cli,fast]")
    session.run("thorn", "demo", *session.posargs)


@nox.session(python=PYTHONS[0])
def bench(session: nox.Session) -> None:
    """Run the benchmarks, which compare with named peers in the same run."""
    session.install(*EVERYTHING, *group("bench"))
    session.run("python", "benchmarks/run.py", *session.posargs)
