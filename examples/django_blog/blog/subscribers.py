"""Static subscribers that depend on the message; the setting has their dotted paths."""

from django.conf import settings


def desk(message):
    """Return the URL of the desk for an article's category, if there is one.

    The worker calls this for each message, so it must be fast.
    """
    return settings.BLOG_DESKS.get(message.payload["category"])
