"""django-webhook: `python benchmarks/django_peer.py fill URL NUMBER`, and then `worker`.

It uses default settings, except for Celery's prefix of keys in Redis and its number of processes.
BENCH_BROKER contains the broker's URL, BENCH_PREFIX the prefix.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import django
from celery import Celery
from throughput import BODY

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.broker_transport_options = {"global_keyprefix": os.environ["BENCH_PREFIX"]}
app.conf.broker_connection_retry_on_startup = True
django.setup()


def fill(url: str, number: int) -> None:
    """Delete earlier records; send tasks for this number of payloads to a URL."""
    from django.core.management import call_command
    from django_webhook.models import Webhook, WebhookEvent
    from django_webhook.tasks import fire_webhook

    call_command("migrate", verbosity=0, interactive=False)
    WebhookEvent.objects.all().delete()
    webhook, new = Webhook.objects.get_or_create(url=url)
    if new:
        webhook.secrets.create(token="whsec_" + "x" * 44)
    payload = BODY.decode()
    for _ in range(number):
        fire_webhook.delay(webhook.pk, payload, topic="a.b", object_type="bench.Article")


def worker() -> None:
    """Deliver until the parent process stops this one, or ends and so closes stdin."""

    def follow() -> None:
        # Doesn't use sys.stdin, because children would inherit its lock.
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
    app.worker_main(["-q", "worker", "--pool=prefork", "--concurrency=2", "--loglevel=ERROR"])


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], int(sys.argv[3]))
    else:
        worker()
