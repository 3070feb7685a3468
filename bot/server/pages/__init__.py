"""The server's own pages: every goal, its runs and curves, the queue and the spending. They look and change nothing."""

from bot.server.pages.site import page_routes

__all__ = ["page_routes"]
