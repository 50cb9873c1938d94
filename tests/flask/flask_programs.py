"""Programs that tests run: started, listened to, told to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TIMEOUT = 60.0
FLASK = str(Path(sys.executable).parent / "flask")


class Running:
    """A Python program in a folder; SIGTERM ends it, and `code` and `seconds` say how.

    Attributes:
        text: What it has written to standard error.
    """

    def __init__(self, where, environment, *command):
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=where,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.text = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            self.code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._thread.join()
            self._process.stderr.close()
        self.seconds = time.monotonic() - began

    def _read(self):
        for line in self._process.stderr:
            with self._changed:
                self.text += line
                self._changed.notify_all()

    def wait_for(self, pattern):
        """The first match in what it writes."""
        with self._changed:
            assert self._changed.wait_for(lambda: re.search(pattern, self.text), TIMEOUT), self.text
        return re.search(pattern, self.text)
