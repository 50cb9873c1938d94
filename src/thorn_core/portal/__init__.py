"""The portal: a page where users look after their subscriptions, over the REST resource.

It is static: files of this package, and a page that says where the resource is. It has no rules and
reads no data; what it shows, the browser asks the resource for. Web adapters carry it.

Example:
    >>> portal = Portal(api_path="/hooks/", hooks_at_root=True)
    >>> page = portal.handle("/")
    >>> page.status, page.headers["content-type"]
    (200, 'text/html; charset=utf-8')
"""

from thorn_core.portal.page import Portal, PortalResponse

__all__ = ["Portal", "PortalResponse"]
