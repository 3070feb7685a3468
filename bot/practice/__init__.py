"""The practice forge: a small local stand-in for GitHub over real git repositories, for the demo and the tests.

    forge = Forge(root)                                        # state in memory, bare repositories under root
    forge.add_user("ada")
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n"})
    forge.add_collaborator("acme/lab", "ada", "write")
    with serve(forge) as url:                                  # loopback only
        ...                                                    # REST at url/api/v3, GraphQL at url/api/graphql

It is not GitHub: no forks' Actions, no organisations' teams, no branch protection, and nothing survives the process
except the git repositories.
"""

from __future__ import annotations

from .auth import AppRegistration
from .forge import Forge
from .server import create_app, serve

__all__ = ["AppRegistration", "Forge", "create_app", "serve"]
