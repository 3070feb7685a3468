"""Jobs in containers of dockerd or podman.

`runner` (the protocol), `engine` (the SDK), `plan` (what a container is made from), `supervisor` and `execution` (what
stands outside of one), `doctor`.
"""
