"""The blog's settings, but that workers of Celery deliver.

Beside what the blog takes from the environment:

| variable            | what it says                                                          |
| ------------------- | --------------------------------------------------------------------- |
| `BLOG_BROKER`       | `amqp://user:password@host//` (RabbitMQ) or `redis://host/0`          |
| `BLOG_HOOK_NETWORK` | An internal network that recipients may be in; by default, none       |
"""

import os

from blog_project.settings import *  # noqa: F403

THORN_DISPATCHER = "celery"
if "BLOG_HOOK_NETWORK" in os.environ:
    THORN_ALLOWED_NETWORKS = [os.environ["BLOG_HOOK_NETWORK"]]
    THORN_ALLOWED_PORTS = range(1024, 65536)

CELERY_BROKER_URL = os.environ["BLOG_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# What was delivered a month ago is removed, daily.
CELERY_THORN_PURGE_AFTER = 30 * 24 * 3600
