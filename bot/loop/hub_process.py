"""Asks the Hub through a process of its own, `hub_child.py`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.errors import TransientError

_CHILD = Path(__file__).with_name("hub_child.py")
_ROOT = Path(__file__).resolve().parents[2]


async def ask_hub(request: Mapping[str, Any], what: str, *, module: str = "") -> dict[str, Any]:
    """The child's answer to `request`, which may be `{"error": ...}`. `what` continues "the Hub did not"; `module` is
    run in place of `hub_child.py`, and may import what is ours.

    Raises: TransientError when no answer came in the request's `seconds`.
    """
    # Neither our own settings nor a token that lies about on this machine: the one given is the one that is meant.
    hidden = ("POSTDOC_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    words = ["-I", str(_CHILD)]
    if module:
        words = ["-P", "-m", module]
        environment |= {"PYTHONPATH": str(_ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment, cwd="/", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        output, _ = await child.communicate(json.dumps(request).encode())
    finally:
        if child.returncode is None:
            child.kill()
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        # Ended by its own alarm, or killed: a stalled transfer looks like this.
        raise TransientError(f"the Hub did not {what} in {request['seconds']} s") from None
    return answer
