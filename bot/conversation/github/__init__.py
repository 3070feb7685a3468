"""The narrow port to GitHub: every call Postdoc makes, made so that making it twice changes nothing.

`GitHubApp` is the App; `Repository` is one repository as one installation sees it. Every request passes the gate of
its installation (`limits`), carries credentials that follow GitHub's clock (`credentials`), and never leaves the server
that was configured: neither a redirect nor a next page takes a token elsewhere.

Plain httpx and PyJWT instead of a GitHub client: pacing, limits, clock and ETags have to be seen at each answer by one
gate for all goals of an installation, and typed models cost about 190 MiB of memory once parsed.
"""

from bot.conversation.github.client import GitHubApp, Installation, OnWrite
from bot.conversation.github.errors import Gone, Refused, StaleHead
from bot.conversation.github.limits import Pacing, Urgency
from bot.conversation.github.reading import CommitSeen
from bot.conversation.github.refs import RefMoved, Refs
from bot.conversation.github.repository import InlineComment, Repository
from bot.conversation.github.servers import Server, server_at
from bot.conversation.github.workflow_token import ACTIONS_LOGIN, WorkflowApp

__all__ = [
    "ACTIONS_LOGIN",
    "CommitSeen",
    "GitHubApp",
    "Gone",
    "InlineComment",
    "Installation",
    "OnWrite",
    "Pacing",
    "RefMoved",
    "Refs",
    "Refused",
    "Repository",
    "Server",
    "StaleHead",
    "Urgency",
    "WorkflowApp",
    "server_at",
]
