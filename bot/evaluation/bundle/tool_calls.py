"""Metric `tool_call_match`: whether a response is exactly one tool call, the right one, with the right arguments.

Calls are understood as models write them: `<tool_call>{"name", "arguments"}</tool_call>`, JSON of that form (a list of
them too), or Python, `[f(a=1)]`. The reference is JSON: {"name", "arguments"}, or as the Berkeley Function Calling
Leaderboard has it, [{"f": {"a": [values that are right]}}], where "" among them means that `a` may be missing
(https://gorilla.cs.berkeley.edu/blogs/8_berkeley_function_calling_leaderboard.html).

    strict    nothing but the call, and every argument equal: numbers by value, truth values and texts exactly
    lenient   one call, with words around it allowed, and texts equal but for case, spaces and punctuation, which is how
              the leaderboard compares them
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple

_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)
_START = re.compile(r"[A-Za-z_][\w.]*\(")


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


def scores(
    samples: list[dict[str, Any]], benchmark: dict[str, Any], items: list[dict[str, Any]]
) -> list[tuple[float, float]]:
    return [score(sample["response"], sample["reference"], sample["finish"]) for sample in samples]


def score(response: str, reference: str, finish: str) -> tuple[float, float]:
    wanted = json.loads(reference)
    alone = whole(response)
    strict = finish == "stop" and alone is not None and matches(alone, wanted, strict=True)
    lenient = strict or matches(anywhere(response), wanted, strict=False)
    return float(strict), float(lenient)


# --- Reading calls ----------------------------------------------------------------------------------------------------


def whole(response: str) -> list[Call] | None:
    """The calls of a response that holds nothing else; None when it holds anything else."""
    text = response.strip()
    if _TAGGED.search(text):
        return None if _TAGGED.sub("", text).strip() else _tagged(text)
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1].strip()
    return _json_calls(text) or _python_calls(text)


def anywhere(response: str) -> list[Call]:
    """Every call in the response, in the first form that it has any of."""
    if found := _tagged(response):
        return found
    for text in [response, *_FENCE.findall(response)]:
        if calls := whole(text):
            return calls
    return _calls_between_words(response)


def _tagged(text: str) -> list[Call]:
    found = [_json_calls(each) for each in _TAGGED.findall(text)]
    return [call for calls in found for call in calls or []]


def _json_calls(text: str) -> list[Call] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    calls = [_call_of(each) for each in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call is not None] if calls and None not in calls else None


def _call_of(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return Call(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def _python_calls(text: str) -> list[Call] | None:
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
    calls = [_call_of_node(node) for node in nodes]
    return [call for call in calls if call is not None] if calls and None not in calls else None


def _call_of_node(node: ast.expr) -> Call | None:
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        return None
    try:
        return Call(ast.unparse(node.func), {str(k.arg): ast.literal_eval(k.value) for k in node.keywords})
    except (ValueError, RecursionError):
        return None


def _calls_between_words(text: str) -> list[Call]:
    found: list[Call] = []
    end = 0
    for match in _START.finditer(text):
        if match.start() < end:
            continue  # inside of the call before
        for stop in (n + 1 for n in range(match.end(), min(len(text), match.end() + 4000)) if text[n] == ")"):
            if calls := _python_calls(text[match.start() : stop]):
                found += calls
                end = stop
                break
    return found


# --- Comparing --------------------------------------------------------------------------------------------------------


def matches(calls: list[Call], wanted: Any, *, strict: bool) -> bool:
    if len(calls) != 1:
        return False
    name, allowed = _allowed(wanted)
    call = calls[0]
    if call.name != name or set(call.arguments) - set(allowed):
        return False
    return all(
        any(_equal(call.arguments[key], each, strict=strict) for each in options)
        if key in call.arguments
        else "" in options
        for key, options in allowed.items()
    )


def _allowed(wanted: Any) -> tuple[str, dict[str, list[Any]]]:
    """(name, argument -> the values that are right) of either form of a reference."""
    if isinstance(wanted, dict) and "name" in wanted:
        return wanted["name"], {key: [value] for key, value in wanted.get("arguments", {}).items()}
    only = wanted[0] if isinstance(wanted, list) else wanted
    (name, arguments), *_ = only.items()
    return name, arguments


def _equal(value: Any, option: Any, *, strict: bool) -> bool:
    if isinstance(value, str) and isinstance(option, str):
        return value == option or (not strict and _plain(value) == _plain(option))
    if isinstance(value, bool) or isinstance(option, bool):
        return value is option
    if isinstance(value, (list, tuple)) and isinstance(option, (list, tuple)):
        return len(value) == len(option) and all(
            _equal(v, o, strict=strict) for v, o in zip(value, option, strict=True)
        )
    if isinstance(value, dict) and isinstance(option, dict):
        # The leaderboard lists the right values of every key of an object as well.
        return set(value) <= set(option) and all(
            _any(value[key], each, strict=strict) if key in value else isinstance(each, list) and "" in each
            for key, each in option.items()
        )
    return bool(value == option)


def _any(value: Any, options: Any, *, strict: bool) -> bool:
    if _equal(value, options, strict=strict):
        return True
    return isinstance(options, list) and any(_equal(value, each, strict=strict) for each in options)


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
