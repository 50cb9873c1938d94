"""The recipient of the benchmarks: compiles and runs server.c."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("server.c")


@contextlib.contextmanager
def running(addresses: int = 1) -> Iterator[int]:
    """Compile the server, start it on 127.0.0.1 to 127.0.0.`addresses`, and yield its port."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("the benchmarks need a C compiler (cc), to compile server.c")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "server")
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
        process = subprocess.Popen(
            [str(program), "0", str(addresses)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.wait()
