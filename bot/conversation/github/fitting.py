"""GitHub's ceilings on texts, kept at the very last moment: what is too long is cut with a note, never refused.

Whoever writes a text keeps it short; this is the last resort, because a text that GitHub refuses would be lost whole.
https://docs.github.com/en/rest/checks/runs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COMMENT_CHARACTERS = 65_536
CHECK_CHARACTERS = 65_535
CHECK_TITLE_CHARACTERS = 255
PULL_REQUEST_TITLE_CHARACTERS = 256
ANNOTATION_BYTES = 64 * 1024
ANNOTATIONS_PER_REQUEST = 50
MOST_ACTIONS = 3
ACTION_CHARACTERS = {"label": 20, "description": 40, "identifier": 20}
_FENCE = "```"


def fitted(text: str, most: int = COMMENT_CHARACTERS) -> str:
    """`text` in at most `most` characters. A block of code that is cut is closed, so that the note is no code."""
    if len(text) <= most:
        return text
    note = f"\n\n*Cut here: GitHub takes {most:,} characters.*"
    kept = text[: most - len(note) - len(_FENCE) - 1]
    kept = kept[: kept.rfind("\n")] if "\n" in kept[len(kept) // 2 :] else kept
    fences = sum(line.lstrip().startswith(_FENCE) for line in kept.splitlines())
    return kept + (f"\n{_FENCE}" if fences % 2 else "") + note


def line_of(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters, with an ellipsis where something is missing."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def fitted_output(output: Mapping[str, Any]) -> dict[str, Any]:
    """A check run's `title`, `summary` and `text` within GitHub's ceilings."""
    found = dict(output)
    if found.get("title") is not None:
        found["title"] = line_of(str(found["title"]), CHECK_TITLE_CHARACTERS)
    for name in ("summary", "text"):
        if found.get(name) is not None:
            found[name] = fitted(str(found[name]), CHECK_CHARACTERS)
    return found


def fitted_actions(actions: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """A check run's buttons; raises ValueError for more than three, or an identifier that would be cut."""
    if len(actions) > MOST_ACTIONS:
        raise ValueError(f"a check run has at most {MOST_ACTIONS} buttons, not {len(actions)}")
    for action in actions:
        if len(action["identifier"]) > ACTION_CHARACTERS["identifier"]:
            raise ValueError(f"a button's identifier has at most 20 characters: {action['identifier']}")
    return [{name: line_of(action[name], most) for name, most in ACTION_CHARACTERS.items()} for action in actions]


def batches(annotations: Sequence[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The annotations in requests' portions, each within its ceilings."""
    for start in range(0, len(annotations), ANNOTATIONS_PER_REQUEST):
        yield [_fitted_annotation(each) for each in annotations[start : start + ANNOTATIONS_PER_REQUEST]]


def _fitted_annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(annotation)
    if found.get("title") is not None:
        found["title"] = line_of(str(found["title"]), CHECK_TITLE_CHARACTERS)
    message = str(found["message"]).encode()
    if len(message) > ANNOTATION_BYTES:
        found["message"] = message[: ANNOTATION_BYTES - len("…".encode())].decode(errors="ignore") + "…"
    return found
