"""Models put on the Hugging Face Hub, each into a repository of its goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.domain.inert import code
from bot.errors import TransientError, UserError
from bot.loop.hub_process import ask_hub

PUBLISH_SECONDS = 3600
"""For one attempt. What an attempt has uploaded of large files is not sent again by the next."""


@dataclass(frozen=True, slots=True)
class Published:
    """A model on the Hub at one commit."""

    repo: str
    url: str
    sha: str
    private: bool
    """As it is, which may be more than was asked."""


async def publish(folder: Path, repo: str, *, goal: str, private: bool, message: str, token: str) -> Published:
    """Make the Hub's `repo` hold the files of `folder`; it is created where it is not there.

    A repository that is there must be empty or carry `postdoc_goal: <goal>` in its card. Its visibility is never
    changed; one that everybody sees is not written to when `private` is asked.

    Raises: UserError, TransientError.
    """
    request = {
        "do": "publish", "repo": repo, "private": private, "token": token, "seconds": PUBLISH_SECONDS,
        "folder": str(folder), "message": message, "goal": goal,
    }  # fmt: skip
    answer = await ask_hub(request, f"take `{repo}`")
    if "error" in answer:
        raise _raised(repo, answer)
    return Published(repo, str(answer["url"]), str(answer["sha"]), bool(answer["private"]))


def _raised(repo: str, answer: Mapping[str, Any]) -> Exception:
    match answer["error"]:
        case "taken":
            return UserError(
                f"`{repo}` on the Hub holds something that is not this goal's: rename or delete it there, or have "
                "`publish.namespace` name another place."
            )
        case "public":
            return UserError(
                f"Everybody can see `{repo}` on the Hub, and this model is to be private: make it private there, or "
                "set `publish.private: false` in the policy for goals to come."
            )
        case "missing" | "token" | "forbidden" | "gated":
            return UserError(
                f"The Hub does not let this server write `{repo}`: have POSTDOC_HUB_TOKEN replaced by a token with "
                "write access to that namespace."
            )
        case "rejected":
            return UserError(f"The Hub does not accept `{repo}`; it says {code(answer['detail'], 300)}.")
        case "offline":
            return UserError(
                "Nothing can be published, because this server is kept off the Hub (HF_HUB_OFFLINE): have it removed "
                "from the server's environment."
            )
        case "broken":
            return RuntimeError(f"publishing {repo} failed: {answer['detail']}")
    return TransientError(
        f"the Hub could not be asked for {repo} ({answer['detail']})", retry_after_seconds=answer["retry_after"]
    )
