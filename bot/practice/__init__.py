"""The practice forge: a small local stand-in for GitHub over real git repositories, for the demo and the tests.

    from bot.practice.forge import Forge
    from bot.practice.server import serve

    forge = Forge(root)                                        # state in memory, bare repositories under root
    forge.add_user("ada")
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n"})
    forge.add_collaborator("acme/lab", "ada", "write")
    with serve(forge) as url:                                  # loopback only
        ...                                                    # REST at url/api/v3, GraphQL at url/api/graphql

It is not GitHub: no forks' Actions, no organisations' teams, no branch protection, and nothing survives the process
except the git repositories.
"""
