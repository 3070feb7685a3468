"""Registering the GitHub App in a browser: GitHub's manifest flow at `/setup`, on a server that has no App yet."""

from bot.server.setup.pages import SetupDesk, create_setup_app

__all__ = ["SetupDesk", "create_setup_app"]
