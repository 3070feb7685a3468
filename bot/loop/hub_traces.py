"""Traces of the language model's work, kept in a private data set of the Hub where the server's owner asks for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.errors import TransientError, UserError
from bot.loop.hub_process import ask_hub

KEEP_SECONDS = 300
_KEPT = ".kept.json"
"""Beside the traces: name -> digest of what has been uploaded of it."""


async def keep_traces(folder: Path, repo: str, *, place: str, token: str) -> list[str]:
    """Upload what has changed of the traces in `folder` into `repo`, below `place`; the names of what was uploaded.

    Repeating it changes nothing, and what failed once goes with the next.

    Raises: UserError, TransientError.
    """
    known = await asyncio.to_thread(_known, folder)
    now = await asyncio.to_thread(_digests, folder)
    new = sorted(name for name, digest in now.items() if known.get(name) != digest)
    if not new:
        return []
    files = [[f"{place}/{name}", str(folder / name)] for name in new]
    request = {"do": "keep", "repo": repo, "token": token, "seconds": KEEP_SECONDS, "files": files,
               "message": f"{place}: {', '.join(new)}"[:200]}  # fmt: skip
    answer = await ask_hub(request, f"take `{repo}`")
    if "error" in answer:
        raise _raised(repo, answer)
    await asyncio.to_thread((folder / _KEPT).write_text, json.dumps(known | {name: now[name] for name in new}))
    return new


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.jsonl"))}


def _known(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _raised(repo: str, answer: Mapping[str, Any]) -> Exception:
    match answer["error"]:
        case "public":
            return UserError(
                f"Everybody can see the data set `{repo}` on the Hub, and traces go into a private one alone: make it "
                "private there, or name another in POSTDOC_TRACES_DATASET."
            )
        case "missing" | "token" | "forbidden" | "gated":
            return UserError(
                f"The Hub does not let this server write the data set `{repo}`: have POSTDOC_HUB_TOKEN replaced by a "
                "token with write access to it, or correct POSTDOC_TRACES_DATASET."
            )
        case "rejected" | "taken":
            return UserError(f"The Hub does not take a trace into `{repo}`; it says: {str(answer['detail'])[:300]}.")
        case "offline":
            return UserError("No trace can be kept on the Hub, because this server is kept off it (HF_HUB_OFFLINE).")
        case "broken":
            return RuntimeError(f"keeping traces in {repo} failed: {answer['detail']}")
    return TransientError(
        f"the Hub could not be asked for {repo} ({answer['detail']})", retry_after_seconds=answer["retry_after"]
    )
