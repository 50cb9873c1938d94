"""The blog's project, on Celery; whoever has its settings has its Celery app."""

from blog_on_celery.celery import app as celery_app

__all__ = ["celery_app"]
