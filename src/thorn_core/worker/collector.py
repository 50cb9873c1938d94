"""The garbage collector of a worker process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

# Allocations, less deallocations, between collections; Python's default of 700 or 2,000 takes up to
# a third of a worker's time. A worker creates many values and few reference cycles.
THRESHOLDS = (50_000, 20, 50)


@contextlib.contextmanager
def relaxed_collector() -> Iterator[None]:
    """Collect garbage less often, and never examine the objects that exist now.

    For processes that only run a worker; programs with a worker of their own keep their thresholds.

    Example:
        >>> with relaxed_collector():
        ...     gc.get_threshold()
        (50000, 20, 50)
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
