"""The blog's settings, with delivery by Celery workers.

Environment variables, in addition to the blog's:

| variable            | meaning                                                      |
| ------------------- | ------------------------------------------------------------ |
| `BLOG_BROKER`       | `amqp://user:password@host//` (RabbitMQ) or `redis://host/0` |
| `BLOG_HOOK_NETWORK` | An internal network that recipients may be in; default: none |
"""

import os

from blog_project.settings import *  # noqa: F403

THORN_DISPATCHER = "celery"
if "BLOG_HOOK_NETWORK" in os.environ:
    THORN_ALLOWED_NETWORKS = [os.environ["BLOG_HOOK_NETWORK"]]
    THORN_ALLOWED_PORTS = range(1024, 65536)

CELERY_BROKER_URL = os.environ["BLOG_BROKER"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A daily task deletes deliveries that are older than a month.
CELERY_THORN_PURGE_AFTER = 30 * 24 * 3600
