"""The blog's settings, but that workers of Celery deliver.

Beside what the blog takes from the environment:

| variable            | what it says                                                          |
| ------------------- | --------------------------------------------------------------------- |
| `BLOG_BROKER`       | `amqp://user:password@host//` (RabbitMQ) or `redis://host/0`          |
| `BLOG_HOOK_NETWORK` | An internal network in which recipients may be; by default none is    |
"""

import os

from blog_project.settings import *  # noqa: F403

THORN_DISPATCHER = "celery"
if "BLOG_HOOK_NETWORK" in os.environ:
    THORN_RECIPIENT_VALIDATORS = [
        ("block_internal_ips",),
        ("allow_cidr_network", os.environ["BLOG_HOOK_NETWORK"]),
        ("ensure_protocol", "http", "https"),
    ]

CELERY_BROKER_URL = os.environ["BLOG_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# What was delivered a month ago is removed, daily.
CELERY_THORN_PURGE_AFTER = 30 * 24 * 3600
