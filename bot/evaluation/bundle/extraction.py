"""What in a response is its answer, and whether that is the reference. Standard library only.

    whole         all of it
    pattern       what the last match of `pattern` (its first group) holds
    answer_line   what stands after `ANSWER:` on the last line that says so
    letter        the letter of a choice: after ANSWER:, in \\boxed{}, or alone on the last line
    number        the last number
    boxed         what the last \\boxed{} holds
    code          the first fenced block, or all of it where there is none

After answer_line, number and boxed, 1,234.0 and 1234 are equal.

Both scores of an answer come from here:

    strict    the whole answer (or what the benchmark's strict rule finds in it) is the reference, and the model ended
              its turn by itself
    lenient   the reference is found after the lenient rule: quotes, final full stop and letter case as configured
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

TRIM = " \t\n\r\"'`*."
"""What lenient scoring ignores around an answer: white space, quotes, Markdown emphasis, a final full stop."""
TAKES = ("whole", "pattern", "answer_line", "letter", "number", "boxed", "code")
NUMERIC = ("answer_line", "number", "boxed")
_NUMBER = re.compile(r"-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#]*(?:final\s+)?answer[ \t*_]*:[ \t*_]*(.+?)[ \t*_]*$", re.IGNORECASE | re.MULTILINE
)
# Not "A dog": a letter that ends the line, or has a mark behind it.
_LETTER = re.compile(r"^\W*([A-Z])(?:\s*|[.):*\]}].*)$")
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def score(sample: dict[str, Any], extraction: dict[str, Any]) -> tuple[float, float]:
    """(strict, lenient) of one answer, each 0.0 or 1.0."""
    strict, lenient = extraction.get("strict") or {}, extraction.get("lenient") or {}
    response, reference = sample["response"], sample["reference"].strip()
    exact = same(extracted(response, strict), reference, strict) and sample["finish"] == "stop"
    candidates = {response, extracted(response, lenient)}
    found = exact or any(near(candidate, reference, lenient) for candidate in candidates)
    return float(exact), float(found)


def extracted(response: str, rule: dict[str, Any]) -> str | None:
    """The answer that the rule finds; None where it finds none."""
    take = rule.get("take") or ("pattern" if rule.get("pattern") else "whole")
    if take == "pattern":
        matches = list(re.finditer(rule["pattern"], response))
        return (matches[-1].group(1 if matches[-1].re.groups else 0) or "").strip() if matches else None
    return FINDERS[take](response)


def answer_line(response: str) -> str | None:
    found = _ANSWER_LINE.findall(response)
    return found[-1].strip() if found else None


def letter(response: str) -> str | None:
    said = response.strip().splitlines()
    for candidate in (answer_line(response), boxed(response), said[-1] if said else None, said[0] if said else None):
        if candidate and (match := _LETTER.match(candidate.strip())):
            return match[1]
    return None


def number(response: str) -> str | None:
    found = _NUMBER.findall(response)
    return found[-1].replace(",", "").replace("$", "") if found else None


def boxed(response: str) -> str | None:
    """What stands between the braces of the last \\boxed{}, braces inside it included."""
    start = response.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for end in range(begin, len(response)):
        if response[end] == "}":
            if depth == 0:
                return response[begin:end].strip()
            depth -= 1
        elif response[end] == "{":
            depth += 1
    return None


def code(response: str) -> str:
    match = _FENCE.search(response)
    return match[1] if match else response


FINDERS: dict[str, Callable[[str], str | None]] = {
    "whole": str.strip,
    "answer_line": answer_line,
    "letter": letter,
    "number": number,
    "boxed": boxed,
    "code": code,
}


def same(found: str | None, reference: str, rule: dict[str, Any]) -> bool:
    if found is None:
        return False
    return found == reference or (rule.get("take") in NUMERIC and _equal_numbers(found, reference))


def near(found: str | None, reference: str, rule: dict[str, Any]) -> bool:
    if found is None:
        return False
    ignore_case = bool(rule.get("ignore_case", False))
    cleaned = trimmed(found, ignore_case)
    return cleaned == trimmed(reference, ignore_case) or same(cleaned, reference, rule)


def trimmed(text: str, ignore_case: bool) -> str:
    text = text.strip(TRIM)
    return text.casefold() if ignore_case else text


def _equal_numbers(one: str, other: str) -> bool:
    try:
        return Decimal(one.replace(",", "")) == Decimal(other.replace(",", ""))
    except InvalidOperation:
        return False
