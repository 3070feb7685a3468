"""What code in the sandbox can ask Postdoc for: `from postdoc import data, runs`, then `help(data.rows)`.

Each function is carried out outside, by the bot, which looks at every argument; its answer is data.
"""

from __future__ import annotations

import inspect
import json
import os
from types import SimpleNamespace
from typing import Any

from ._link import Refused, current

__all__ = ["Refused"]


def _function(name: str, described: dict[str, Any]) -> Any:
    signature = inspect.Signature(
        [
            inspect.Parameter(
                each["name"],
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if each["required"] else each["default"],
                annotation=each["kind"],
            )
            for each in described["parameters"]
        ]
    )

    def ask(*args: Any, **kwargs: Any) -> Any:
        return current().call(name, dict(signature.bind(*args, **kwargs).arguments))

    ask.__name__ = name.partition(".")[2]
    ask.__qualname__ = name
    ask.__doc__ = described["about"]
    ask.__signature__ = signature  # type: ignore[attr-defined]
    return ask


def _rooms() -> dict[str, SimpleNamespace]:
    place = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "functions.json")
    try:
        with open(place, encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:  # outside of a session
        known = {}
    rooms: dict[str, SimpleNamespace] = {}
    for name, described in known.items():
        room, _, function = name.partition(".")
        setattr(rooms.setdefault(room, SimpleNamespace()), function, _function(name, described))
    return rooms


globals().update(_rooms())
