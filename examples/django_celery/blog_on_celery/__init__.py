"""The blog on Celery; importing its settings also imports its Celery app."""

from blog_on_celery.celery import app as celery_app

__all__ = ["celery_app"]
