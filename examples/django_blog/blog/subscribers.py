"""Static subscribers that depend on the message; the setting names them by a dotted path."""

from django.conf import settings


def desk(message):
    """The URL of the desk of an article's category, if it has one.

    The worker calls it for each message: it had better be quick.
    """
    return settings.BLOG_DESKS.get(message.payload["category"])
