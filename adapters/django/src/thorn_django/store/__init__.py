"""The store in Django's databases."""

from thorn_django.store.store import DjangoStore

__all__ = ["DjangoStore"]
