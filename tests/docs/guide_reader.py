"""Somebody who follows a guide to the letter: its steps, in order, beginning in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
from running import heed_interrupts

DOCS = Path(__file__).resolve().parents[2] / "docs"
STEP = re.compile(r"^<!-- step: (.+?) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT = 60.0


def steps_of(guide, *ports):
    """The steps of a guide, on free ports in place of those that it names."""
    text = (DOCS / guide).read_text("utf-8")
    for port in ports:
        text = text.replace(port, free_port())
    return STEP.findall(text)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


class Terminal:
    """Another terminal, at work."""

    def __init__(self, command, reader):
        self.command = command
        self._reader = reader
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            cwd=reader.where,
            env=reader.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_interrupts,
        )
        self._text = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._thread.join()
            self._process.stdout.close()

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self._text += line
                self._changed.notify_all()

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self._text, TIMEOUT), self._text


@attrs.define
class Reader:
    """Somebody who follows a guide.

    Attributes:
        packages: What the guide is to install.
        where: The folder that the first terminal is in.
        environment: Of every terminal.
        terminals: The others, as they were opened.
    """

    packages: set[str]
    where: Path
    environment: dict[str, str]
    stack: ExitStack
    terminals: list[Terminal] = attrs.field(factory=list)

    def follow(self, step, text):
        """Do what a step says."""
        match step.split(maxsplit=2):
            case ["install"]:
                # What is tested is installed already; the packages are these.
                assert self.packages <= set(re.findall(r"[\w-]+", text))
            case ["run"]:
                self._run(text)
            case ["write", path]:
                (self.where / path).write_text(text, "utf-8")
            case ["append", "to", path]:
                with (self.where / path).open("a", encoding="utf-8") as file:
                    file.write("\n" + text)
            case ["in", "another", rest]:
                terminal = self.stack.enter_context(Terminal(text.strip(), self))
                self.terminals.append(terminal)
                terminal.wait_for(re.search('until it says "(.+)"', rest)[1])
            case ["the", "other", "terminal shows"]:
                for line in text.splitlines():
                    self.terminals[-1].wait_for(line)
            case _:
                raise AssertionError(f"nobody knows how to follow {step!r}")

    def _run(self, text):
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", f"{text}\npwd >&2"],
            cwd=self.where,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        self.where = Path(done.stderr.splitlines()[-1])


@contextmanager
def reader_in(folder, *packages):
    """A reader in an empty folder.

    Args:
        folder: Where.
        *packages: What the guide is to install, which is there already.
    """
    here = Path(sys.executable).parent
    foreign = ("DJANGO", "FLASK", "THORN", "COV")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(foreign)},
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "error",
        "COLUMNS": "200",
    }
    with ExitStack() as stack:
        yield Reader(set(packages), folder, environment, stack)
