"""Conversations in the forms that data sets have them, as chat messages: `{"role", "content"}`.

Read are lists of messages under several names for role and content (ShareGPT's `from` and `value` among them), the same
as columns of lists, lists of exchanges, lists of texts that alternate, JSON of any of these, and one text with markers
("### Human:", "[INST]", "<|im_start|>user" ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Turn = dict[str, Any]
"""`role` (system, user, assistant, tool) and `content`; `tool_calls` and what belongs to them where there are any."""

USER, ASSISTANT, SYSTEM, TOOL = "user", "assistant", "system", "tool"
SPEAKERS = {
    **dict.fromkeys(
        ("user", "human", "prompter", "person", "customer", "client", "patient", "student", "usr", "instruction",
         "question", "q", "questioner", "buyer", "seeker", "input"), USER),
    **dict.fromkeys(
        ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "ai", "chatbot", "claude", "agent", "response",
         "answer", "a", "output", "doctor", "teacher", "tutor", "therapist", "counselor", "supporter", "function_call",
         "function-call", "tool_call"), ASSISTANT),
    **dict.fromkeys(("system", "developer", "context"), SYSTEM),
    **dict.fromkeys(
        ("tool", "function", "observation", "function_response", "function-response", "function response",
         "tool_response", "tool_results", "ipython"), TOOL),
}  # fmt: skip
"""What data sets call them -> what chat templates do."""
ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance")
EXCHANGE_KEYS = (
    ("user", "assistant"), ("human", "assistant"), ("human", "gpt"), ("human", "bot"), ("input", "output"),
    ("prompt", "response"), ("prompt", "completion"), ("instruction", "response"), ("instruction", "output"),
    ("question", "answer"), ("query", "response"), ("user", "bot"), ("Human", "Assistant"), ("User", "Assistant"),
)  # fmt: skip
KEPT_KEYS = ("tool_calls", "tool_call_id", "name", "tools")

_ASKING = r"human|user|prompter|instruction|question|client|customer|patient|q"
_ANSWERING = r"assistant|gpt|chatgpt|bot|chatbot|ai|model|response|answer|doctor|a"
_OTHERS = r"system|tool|function response|function|input|context"
_ANY = f"{_ASKING}|{_ANSWERING}|{_OTHERS}"
MARKERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("<|im_start|>", re.compile(r"<\|im_start\|>(?P<role>\w+)[ \t]*\n?")),
    ("<|start_header_id|>", re.compile(r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*")),
    ("<start_of_turn>", re.compile(r"<start_of_turn>(?P<role>\w+)[ \t]*\n?")),
    ("<|user|>", re.compile(rf"<\|(?P<role>{_ANY})\|>:?\s*", re.IGNORECASE)),
    ("### Human:", re.compile(rf"(?<!#)#{{2,4}} ?(?P<role>{_ANY}) ?:\s*", re.IGNORECASE)),
    ("<human>:", re.compile(rf"<(?P<role>{_ANY})> ?:\s*", re.IGNORECASE)),
    ("[|Human|]", re.compile(rf"\[\|(?P<role>{_ANY})\|\]:?\s*", re.IGNORECASE)),
    ("Human:", re.compile(rf"(?:^|\n)[ \t]*(?:\*\*)?(?P<role>{_ANY})(?:\*\*)? ?:(?:\*\*)?[ \t]*", re.IGNORECASE)),
)
"""(how one looks, what finds it), the more telling first."""
_ENDS = re.compile(
    r"(?:<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|endoftext\|>|<\|end_of_text\|>|<\|end\|>|</s>|<\|eos\|>)"
)
_BEGINS = re.compile(r"^\s*(?:<s>|<\|begin_of_text\|>|<bos>|<\|startoftext\|>)+")
_ALPACA = "Below is an instruction that describes a task"


def as_turns(value: Any) -> list[Turn] | None:
    """A conversation, or None where `value` is none that is known here. A bare text is none."""
    if isinstance(value, str):
        inner = from_json(value)
        return marked_turns(value) if inner is None else as_turns(inner)
    if isinstance(value, Mapping):
        columns = _turns_of_columns(value)
        if columns is not None:
            return columns
        return as_turns(next(iter(value.values()))) if _is_wrapped(value) else _list_turns([value])
    if isinstance(value, list | tuple) and value:
        if all(isinstance(one, str) for one in value):
            return [{"role": (USER, ASSISTANT)[at % 2], "content": one} for at, one in enumerate(value)]
        if all(isinstance(one, Mapping) for one in value):
            return _list_turns(list(value))
    return None


def _is_wrapped(value: Mapping[str, Any]) -> bool:
    """{"messages": [...]}: a conversation under one key."""
    return len(value) == 1 and isinstance(next(iter(value.values())), list)


def _turns_of_columns(value: Mapping[str, Any]) -> list[Turn] | None:
    """{"role": [...], "content": [...]}, as `datasets` stores a list of objects."""
    role, content = _key(value, ROLE_KEYS), _key(value, CONTENT_KEYS)
    if role is None or content is None or not isinstance(value[role], list) or not isinstance(value[content], list):
        return None
    pairs = zip(value[role], value[content], strict=False)
    return _list_turns([{"role": one, "content": text} for one, text in pairs])


def _list_turns(values: list[Mapping[str, Any]]) -> list[Turn] | None:
    exchange = next((keys for keys in EXCHANGE_KEYS if all(set(keys) <= one.keys() for one in values)), None)
    if exchange is not None:
        return [
            {"role": role, "content": one[key]}
            for one in values for role, key in zip((USER, ASSISTANT), exchange, strict=True)
            if isinstance(one[key], str)
        ] or None  # fmt: skip
    turns = [_turn(one) for one in values]
    return [turn for turn in turns if turn is not None] if turns and all(turns) else None


def _turn(value: Mapping[str, Any]) -> Turn | None:
    role, content = _key(value, ROLE_KEYS), _key(value, CONTENT_KEYS)
    if role is None or not isinstance(value[role], str):
        return None
    name = SPEAKERS.get(value[role].strip().lower())
    said = _plain(value[content]) if content is not None else None
    calls = value.get("tool_calls")
    if name is None or (said is None and not calls):
        return None
    kept = {key: value[key] for key in KEPT_KEYS if value.get(key)}
    return {"role": name, "content": said or "", **kept}


def doubled_content(value: Any) -> list[str]:
    """Keys under which the messages of a conversation say the same in two forms, `value` and `markdown` say."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        return []
    for one in value:
        keys = [
            key for key in (*CONTENT_KEYS, "markdown", "html") if isinstance(one.get(key), str) and one[key].strip()
        ]
        if len(keys) > 1 and len({one[key] for key in keys}) > 1:
            return keys
    return []


def _plain(content: Any) -> str | None:
    """Text, or the texts of parts: [{"type": "text", "text": "..."}]."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(one, Mapping) for one in content):
        texts = [one.get("text") for one in content]
        return "\n".join(texts) if all(isinstance(one, str) for one in texts) else None
    return None


def _key(value: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in value), None)


def from_json(text: str) -> Any:
    """The list or object that `text` spells out; None for any other text."""
    if text[:1] not in "[{" and text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list | dict) else None


def marker_of(text: str) -> str | None:
    """How the marked turns of a text look: "### Human:", "[INST]" ...; None where it has none of both sides."""
    if "[INST]" in text and "[/INST]" in text:
        return "[INST]"
    for name, pattern in MARKERS:
        marks = [(match.start(), SPEAKERS.get(match["role"].lower())) for match in pattern.finditer(text)]
        early = bool(marks) and (name != "Human:" or not text[: marks[0][0]].strip())
        if early and {USER, ASSISTANT} <= {role for _, role in marks}:
            return name
    return None


def marked_turns(text: str) -> list[Turn] | None:
    """The turns of one text with markers. What stands before the first marker is the system's; an answer that is only
    announced is left out."""
    name = marker_of(text)
    if name is None:
        return None
    text = _BEGINS.sub("", text)
    if name == "[INST]":
        return _instruction_turns(text)
    pattern = dict(MARKERS)[name]
    marks = list(pattern.finditer(text))
    before = _ENDS.sub("", text[: marks[0].start()]).strip()
    turns: list[Turn] = []
    if before and not before.startswith(_ALPACA):
        turns.append({"role": SYSTEM, "content": before.removeprefix("SYSTEM:").strip()})
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        said = _ENDS.sub("", text[mark.end() : after.start() if after else len(text)]).strip()
        word = mark["role"].lower()
        role = SPEAKERS.get(word, USER)
        if word == "input" and turns and turns[-1]["role"] == USER:
            turns[-1]["content"] += f"\n\n{said}" if said else ""
        elif said:
            turns.append({"role": role, "content": said})
    return turns or None


def _instruction_turns(text: str) -> list[Turn] | None:
    turns: list[Turn] = []
    for part in text.split("[INST]")[1:]:
        asked, closed, said = part.partition("[/INST]")
        begin, marked, rest = asked.partition("<</SYS>>")
        if marked and begin.lstrip().startswith("<<SYS>>"):
            turns.append({"role": SYSTEM, "content": begin.lstrip().removeprefix("<<SYS>>").strip()})
            asked = rest
        turns.append({"role": USER, "content": asked.strip()})
        said = _ENDS.sub("", said).replace("<s>", "").strip()
        turns += [{"role": ASSISTANT, "content": said}] if closed and said else []
    return turns or None


def shared_turns(one: list[Turn], other: list[Turn]) -> int:
    """How many turns both conversations begin with."""
    count = 0
    for mine, yours in zip(one, other, strict=False):
        if mine["role"] != yours["role"] or mine["content"].strip() != yours["content"].strip():
            break
        count += 1
    return count
