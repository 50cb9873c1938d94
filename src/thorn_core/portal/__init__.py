"""The portal: a page where users manage their subscriptions, through the REST resource.

It consists of static files and a page with the resource's URL. It contains no rules and no data:
the browser requests everything from the resource. Web adapters mount it.

Example:
    >>> portal = Portal(api_path="/hooks/", hooks_at_root=True)
    >>> page = portal.handle("/")
    >>> page.status, page.headers["content-type"]
    (200, 'text/html; charset=utf-8')
"""

from thorn_core.portal.page import Portal, PortalResponse

__all__ = ["Portal", "PortalResponse"]
