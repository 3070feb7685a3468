"""Global ids of things."""

from __future__ import annotations

import base64


def node_id(prefix: str, number: int) -> str:
    """A global id that looks like GitHub's: opaque, URL-safe, with the type's letters in front."""
    return f"{prefix}_kwDO{base64.urlsafe_b64encode(number.to_bytes(6, 'big')).decode()}"
