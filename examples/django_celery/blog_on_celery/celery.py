"""The Celery app: web processes send tasks to it, and `celery -A blog_on_celery` runs it."""

import os

from celery import Celery

from thorn_celery import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog_on_celery.settings")
app = Celery("blog")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)
