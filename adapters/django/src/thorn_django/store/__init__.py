"""The store in Django's databases."""

from thorn_django.store.store import DjangoStore, close_stores

__all__ = ["DjangoStore", "close_stores"]
