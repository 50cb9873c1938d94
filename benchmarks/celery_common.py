"""Functions for benchmark programs with a Celery app."""

from __future__ import annotations

import os

from celery import Celery


def make_celery() -> Celery:
    """Create the Celery app of a program, on BENCH_BROKER, with a queue named BENCH_NAME."""
    name = os.environ["BENCH_NAME"]
    celery = Celery(name, broker=os.environ["BENCH_BROKER"])
    celery.conf.update(
        task_default_queue=name,
        broker_transport_options=(
            {"global_keyprefix": f"{name}:"}
            if os.environ["BENCH_BROKER"].startswith("redis")
            else {}
        ),
        broker_connection_retry_on_startup=True,
        # These would create queues in the broker, which stay when a worker is killed.
        worker_enable_remote_control=False,
    )
    return celery


def work(celery: Celery, pool: str, processes: str, *more: str) -> None:
    """Run a worker until the process is stopped.

    Args:
        celery: The app.
        pool: `prefork`, `threads` or `solo`.
        processes: Number of processes or threads.
        *more: Further arguments of the command line.
    """
    celery.worker_main(
        [
            *("--quiet", "worker", f"--pool={pool}", f"--concurrency={processes}"),
            *("--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
            *more,
        ]
    )
