"""A transcript as the JSONL that Claude Code writes of its sessions, which the Hub's trace viewer reads.

One object a line: `user`, `assistant` with the Messages API's message, `system` for what is neither; each with its
`uuid` and that of the line before (https://huggingface.co/docs/hub/agent-traces). Names in it are the goal's and never
this machine's. Secrets are gone, and so are the benchmark's items: whatever piece of their text was shown or said.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from bot.brain.agent.transcript import CLOSED, COMPACTED, LOST, REPLY, RESULT, SAID, SUMMARY
from bot.brain.model.talk import Stop

_NAMESPACE = UUID("6f1c1f0e-6f0b-4f0a-9c1e-0d0a5b7f2c11")
ITEM = "[an item of the benchmark]"
_SHORTEST, _STRIDE = 24, 8
"""Letters of a stretch that is looked for, and from one such stretch of an item to the next: whoever shows 31 letters
of an item in a row shows one of them. Fewer stand in many texts."""
_ESCAPE = re.compile(r"""\\[nrt"'\\]""")
"""Two characters, as Python and JSON write one inside of quotes."""
_STOPS = {
    Stop.END: "end_turn", Stop.TOOLS: "tool_use", Stop.LENGTH: "max_tokens", Stop.REFUSED: "refusal",
    Stop.PAUSED: "pause_turn", Stop.FULL: "model_context_window_exceeded",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """What a trace is of."""

    name: str
    """Unique for all goals of all servers: `owner/repository#7/think-2`."""
    folder: str
    """The experiment's, in its repository."""
    branch: str
    version: str
    """Postdoc's."""

    @property
    def id(self) -> str:
        return str(uuid5(_NAMESPACE, self.name))


class Hidden:
    """Takes texts, and whatever longer stretch of one, out of a JSON value, in time linear in the value's length.

    Letters and digits alone are compared, so that blanks, quotes, escapes and capitals do not matter.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._places: dict[str, tuple[int, int]] = {}
        """Stretch -> text and offset where it stands."""
        for text in texts:
            bare, _ = _bare(text)
            if len(bare) >= _SHORTEST:
                for at in range(0, len(bare) - _SHORTEST + 1, _STRIDE):
                    self._places.setdefault(bare[at : at + _SHORTEST], (len(self._texts), at))
                self._texts.append(bare)

    def __call__(self, value: Any) -> Any:
        if not self._places:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self(key): self(inner) for key, inner in value.items()}
        return [self(inner) for inner in value] if isinstance(value, list | tuple) else value

    def _text(self, text: str) -> str:
        bare, origin = _bare(text)
        kept: list[str] = []
        place = done = at = 0
        while at + _SHORTEST <= len(bare):
            found = self._places.get(bare[at : at + _SHORTEST])
            if found is None:
                at += 1
                continue
            start, end = self._stretch(bare, at, *found, done)
            kept += [text[place : origin[start]], ITEM]
            place, done, at = origin[end - 1] + 1, end, end
        return "".join([*kept, text[place:]])

    def _stretch(self, bare: str, at: int, which: int, offset: int, least: int) -> tuple[int, int]:
        """The match, as far as it goes to both sides."""
        item, start, end = self._texts[which], at, at + _SHORTEST
        ahead = offset + _SHORTEST - end
        while start > least and start + ahead > 0 and bare[start - 1] == item[start - 1 + ahead]:
            start -= 1
        while end < len(bare) and end + ahead < len(item) and bare[end] == item[end + ahead]:
            end += 1
        return start, end


def _bare(text: str) -> tuple[str, list[int]]:
    """Letters and digits in lower case, and where each stands in `text`."""
    plain = _ESCAPE.sub("  ", text)
    found = [(character.lower()[:1], place) for place, character in enumerate(plain) if character.isalnum()]
    return "".join(character for character, _ in found), [place for _, place in found]


def trace_lines(
    entries: Iterable[Mapping[str, Any]],
    session: Session,
    *,
    clean: Callable[[Any], Any] = lambda value: value,
    hide: Callable[[Any], Any] = lambda value: value,
) -> Iterator[dict[str, Any]]:
    """`entries` are `Transcript.lines()`. The same ones give the same lines, a longer transcript more of them."""
    before: str | None = None
    number = 0
    for entry in entries:
        for line in _lines_of(entry):
            own = str(uuid5(_NAMESPACE, f"{session.name}/{number}"))
            whole = {
                "parentUuid": before,
                "isSidechain": bool(line.pop("isSidechain", False)),
                "userType": "external",
                "cwd": session.folder,
                "sessionId": session.id,
                "version": session.version,
                "gitBranch": session.branch,
                **line,
                "uuid": own,
                "timestamp": _moment(entry["at"]),
            }
            if whole["type"] == "assistant":
                whole["message"]["id"] = f"msg_{own}"
            yield hide(clean(whole))
            before, number = own, number + 1


def write_trace(
    entries: Iterable[Mapping[str, Any]],
    path: Path,
    session: Session,
    *,
    clean: Callable[[Any], Any] = lambda value: value,
    hide: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Replace the file `path` by the trace, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        for line in trace_lines(entries, session, clean=clean, hide=hide):
            # Half of a surrogate pair may stand in a model's reply, and in no file.
            text = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode()
            file.write(text + "\n")
    partial.replace(path)


def _lines_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    match entry["kind"]:
        case str(kind) if kind == SAID:
            # The answers of tools have lines of their own, from when each was carried out.
            return [_user(entry["text"])] if entry.get("text") else []
        case str(kind) if kind == RESULT:
            block = {"type": "tool_result", "tool_use_id": entry["id"], "content": entry["text"]}
            return [_user([block | {"is_error": True} if entry["failed"] else block])]
        case str(kind) if kind == REPLY:
            return [_reply(entry)]
        case str(kind) if kind == COMPACTED:
            first = entry["said"][0].get("text", "") if entry["said"] else ""
            boundary = _system("compact_boundary", "The conversation was shortened.")
            return [boundary, _user(first) | {"isCompactSummary": True}]
        case str(kind) if kind == LOST:
            return [_system("api_error", entry["why"]) | {"costUSD": entry["usd"], "usage": _usage(entry["usage"])}]
        case str(kind) if kind == CLOSED:
            return [_system("informational", f"The work ended. {entry['why']}")]
    return []


def _user(content: Any) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": content}}


def _system(subtype: str, content: str) -> dict[str, Any]:
    return {"type": "system", "subtype": subtype, "content": content, "isMeta": False}


def _reply(entry: Mapping[str, Any]) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": block["thinking"]}
        for block in entry.get("native", ())
        if block.get("type") == "thinking" and isinstance(block.get("thinking"), str)
    ]
    if entry.get("text"):
        blocks.append({"type": "text", "text": entry["text"]})
    blocks += [
        {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["arguments"]}
        for call in entry.get("calls", ())
    ]
    message = {
        "type": "message",
        "role": "assistant",
        "model": entry["model"],
        "content": blocks,
        "stop_reason": _STOPS.get(entry["stop"], "end_turn"),
        "stop_sequence": None,
        "usage": _usage(entry["usage"]),
    }
    line = {"type": "assistant", "message": message, "requestId": entry.get("request_id", ""), "costUSD": entry["usd"]}
    # Asked for by us for a compaction, and no part of the conversation.
    return line | {"isSidechain": True} if entry.get("about") == SUMMARY else line


def _usage(usage: Mapping[str, int]) -> dict[str, int]:
    return {
        "input_tokens": usage.get("input", 0),
        "output_tokens": usage.get("output", 0),
        "cache_read_input_tokens": usage.get("cache_read", 0),
        "cache_creation_input_tokens": usage.get("cache_write", 0),
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
