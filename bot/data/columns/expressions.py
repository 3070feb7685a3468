"""What a recipe's `data_*_column` may say: a column, a part of one, or a few ways to make a value from several.

    question                            a column; `reward_model.ground_truth` a field, `answers.text[0]` an element
    instruction + input?                texts with a blank line between them; `?` marks one that may be empty
    options(choices)                    the choices, one a line, lettered; of several columns: options(opa, opb, opc)
    pick(answer, choices)               the choice that `answer` names: by text, letter, label or number from 0
    pick1(answer, option1, option2)     the same, numbers from 1
    final(solution)                     what stands after the last "####", or in the last \\boxed{}
    turns(chat)                         a conversation in one text ("### Human: ..."), or texts that alternate
    shared(chosen, rejected)            the turns that two conversations begin with
    rest(chosen, rejected)              the turns of the first that come after those
    after(chosen, prompt)               a text without another one that it begins with
    best(answers.text, answers.score)   of a list the element with the highest score; worst(...) the lowest
    lowest(answers.text, answers.rank)  the same where less is better; highest(...) the worst then
    higher(a, score_a, b, score_b)      of two the one with the higher score; lower(...) the other; neither if equal. A
                                        score may be a number: higher(a, 0, b, preference), positive for b
    by(winner, model_a=a, model_b=b)    the value that belongs to what the column says
    other(choice, a, b)                 of two, the one that pick(choice, a, b) leaves; other1(...) that of pick1(...)

What is none of these is `Unreadable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .turns import as_turns, from_json, shared_turns

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")
_CALL = re.compile(r"([a-z]+1?)\((.*)\)", re.DOTALL)
_INDEX = re.compile(r"\[-?\d+\]")
_LITERAL = re.compile(r"-?\d+(\.\d+)?")
_LONGEST_FINAL = 400
"""Characters at the end of an answer in which "the answer is" says what it comes to."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Unreadable(ValueError):
    """An expression that is none; its text says why."""


def value_of(expression: str, record: Mapping[str, Any]) -> Any:
    """What `expression` says of a row; None where the row lacks it. Raises: Unreadable."""
    if expression in record:
        return record[expression]
    parts = divided(expression, "+")
    if len(parts) > 1:
        return _joined(parts, record)
    call = _CALL.fullmatch(expression.strip())
    if call is not None:
        return _called(call[1], divided(call[2], ","), record)
    name = expression.strip().removesuffix("?")
    return float(name) if _LITERAL.fullmatch(name) and name not in record else at_path(name, record)


def columns_of(expression: str, columns: Sequence[str]) -> list[str]:
    """The top-level columns that an expression reads, which must all be in `columns`. Raises: Unreadable."""
    return [_column(path, columns) or path for path in paths_of(expression, columns)]


def paths_of(expression: str, columns: Sequence[str]) -> list[str]:
    """The columns and fields that an expression reads, without the numbers of elements. Raises: Unreadable."""
    if expression in columns:
        return [expression]
    parts = divided(expression, "+")
    if len(parts) > 1:
        return [name for part in parts for name in paths_of(part.strip(), columns)]
    call = _CALL.fullmatch(expression.strip())
    if call is None:
        name = expression.strip().removesuffix("?")
        if _LITERAL.fullmatch(name):
            return []
        if _column(name, columns) is None:
            raise Unreadable(f"{expression} is not a column of the data")
        return [name if name in columns else _INDEX.sub("", name)]
    if call[1] not in _FUNCTIONS and call[1] != "by":
        raise Unreadable(f"{call[1]}(...) is not known; there are {', '.join([*_FUNCTIONS, 'by'])}")
    arguments = divided(call[2], ",")
    if call[1] == "by":
        arguments = [arguments[0], *(argument.partition("=")[2] for argument in arguments[1:])]
    return [name for argument in arguments for name in paths_of(argument.strip(), columns)]


def divided(text: str, sign: str) -> list[str]:
    """`text` at each `sign` that stands outside of parentheses; a plus only with spaces around it."""
    sign = f" {sign} " if sign == "+" else sign
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and text.startswith(sign, at):
            parts.append(text[begin:at].strip())
            begin = at + len(sign)
    return [*parts, text[begin:].strip()]


def _column(path: str, columns: Sequence[str] | Mapping[str, Any]) -> str | None:
    """The longest column that `path` begins with."""
    fitting = [
        name for name in columns
        if path == name or (path.startswith(name) and path[len(name) : len(name) + 1] in (".", "["))
    ]  # fmt: skip
    return max(fitting, key=len, default=None)


def at_path(path: str, record: Mapping[str, Any]) -> Any:
    """A column, a field of it, an element; of a list of objects a field is the list of their fields."""
    name = _column(path, record)
    if name is None:
        return None
    value = record[name]
    for inner, index in _STEP.findall(path[len(name) :]):
        value = _step(value, inner, index)
    return value


def _step(value: Any, inner: str, index: str) -> Any:
    if isinstance(value, str):
        value = from_json(value)
    if inner:
        if isinstance(value, list):
            return [one.get(inner) for one in value if isinstance(one, Mapping)]
        return value.get(inner) if isinstance(value, Mapping) else None
    within = isinstance(value, list) and -len(value) <= int(index) < len(value)
    return value[int(index)] if within else None


def is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def text_of_value(value: Any) -> str | None:
    """A text, a number or a truth value as text; a list of texts with line breaks; None for anything else."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) or math.isfinite(value) else None
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    return value if isinstance(value, str) and value.strip() else None


def _joined(parts: Sequence[str], record: Mapping[str, Any]) -> str | None:
    texts = []
    for part in parts:
        value = value_of(part.removesuffix("?"), record)
        said = text_of_value(value)
        if said is None:
            if not part.endswith("?"):
                return None
            continue
        texts.append(said)
    return "\n\n".join(texts) or None


# --- Choices ----------------------------------------------------------------------------------------------------------


def options_of(values: Sequence[Any]) -> list[tuple[str, str]]:
    """(label, text) of each choice: of one list, of {"text": [...], "label": [...]}, of {"A": ...}, of objects, or of
    several columns. [] for what is none."""
    if len(values) > 1:
        texts = [text_of_value(value) for value in values]
        return [(LETTERS[at], text or "") for at, text in enumerate(texts)] if any(texts) else []
    value = values[0] if values else None
    if isinstance(value, str):
        value = from_json(value)
    if isinstance(value, Mapping):
        return _options_of_object(value)
    if not isinstance(value, list):
        return []
    if all(isinstance(one, Mapping) for one in value):
        pairs = [(_first(one, ("label", "key", "id", "letter")), _first(one, ("text", "value", "content")))
                 for one in value]  # fmt: skip
        return [(str(label), str(text)) for label, text in pairs if text is not None]
    said = [text_of_value(one) for one in value]
    return [(LETTERS[at % 26], one) for at, one in enumerate(said) if one is not None]


def _options_of_object(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    texts, labels = value.get("text"), value.get("label")
    if isinstance(texts, list):
        labels = labels if isinstance(labels, list) and len(labels) == len(texts) else list(LETTERS[: len(texts)])
        return [(str(label), str(text)) for label, text in zip(labels, texts, strict=False)]
    return [(str(label), str(text)) for label, text in value.items() if text is not None]


def _first(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((value[name] for name in names if name in value), None)


def picked(answer: Any, options: Sequence[tuple[str, str]], base: int = 0) -> int | None:
    """Which of the choices `answer` names: a number from `base`, a label, a letter, or the text of one."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, str):
        word = answer.strip()
        by_text = [at for at, (_, text) in enumerate(options) if text.strip() == word]
        if len(by_text) == 1:
            return by_text[0]
        named = word.strip("().: ").upper()
        labels = [label.strip("().: ").upper() for label, _ in options]
        if named in labels:
            return labels.index(named)
        if len(named) == 1 and named in LETTERS and LETTERS.index(named) < len(options):
            return LETTERS.index(named)
        answer = int(word) if re.fullmatch(r"\d{1,2}", word) else None
    if not isinstance(answer, int):
        return None
    return answer - base if base <= answer < len(options) + base else None


# --- Functions --------------------------------------------------------------------------------------------------------


def _called(name: str, arguments: Sequence[str], record: Mapping[str, Any]) -> Any:
    if name == "by":
        said = at_path(arguments[0], record)
        word = _selector_word(said)
        for case in arguments[1:]:
            wanted, _, expression = case.partition("=")
            if wanted.strip() == word:
                return value_of(expression.strip(), record)
        return None
    function = _FUNCTIONS.get(name)
    if function is None:
        raise Unreadable(f"{name}(...) is not known; there are {', '.join([*_FUNCTIONS, 'by'])}")
    return function([value_of(argument, record) for argument in arguments])


def _selector_word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _options(values: list[Any]) -> str | None:
    return "\n".join(f"{label}. {text}" for label, text in options_of(values)) or None


def _pick(values: list[Any], base: int = 0) -> Any:
    if len(values) == 2 and isinstance(values[1], list) and not all(isinstance(one, str) for one in values[1]):
        at = picked(values[0], [("", "")] * len(values[1]), base)  # conversations, say: only a number can name one
        objects = [one for one in values[1] if isinstance(one, Mapping)]
        if at is not None and not (objects and options_of([values[1]])):
            return values[1][at]
    options = options_of(values[1:])
    at = picked(values[0], options, base)
    return options[at][1] if at is not None else None


def final_answer(text: str) -> str | None:
    """What a worked answer ends in: after the last "####", in the last \\boxed{}, or after "The answer is"."""
    if "####" in text and (marked := text[text.rfind("####") + 4 :].strip()):
        return marked
    if (boxed := last_boxed(text)) is not None:
        return boxed
    end = text[-_LONGEST_FINAL:].rstrip()
    at = end.lower().rfind("answer is")
    said = end[at + len("answer is") :].lstrip(": ").removesuffix(".").strip() if at >= 0 else ""
    return said if said and "\n" not in said else None


def last_boxed(text: str) -> str | None:
    """The inside of the last \\boxed{}, whose braces may be nested."""
    begin = text.rfind("\\boxed{")
    if begin < 0:
        return None
    begin += len("\\boxed{")
    depth = 1
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[begin:at].strip() or None
    return None


def _final(values: list[Any]) -> str | None:
    said = text_of_value(values[0])
    return final_answer(said) if said is not None else None


def _shared(values: list[Any]) -> Any:
    one, other = as_turns(values[0]), as_turns(values[1])
    return one[: shared_turns(one, other)] or None if one and other else None


def _rest(values: list[Any]) -> Any:
    one, other = as_turns(values[0]), as_turns(values[1])
    return one[shared_turns(one, other) :] or None if one and other else None


def _after(values: list[Any]) -> str | None:
    whole, begin = text_of_value(values[0]), text_of_value(values[1])
    if whole is None or begin is None or not whole.strip().startswith(begin.strip()):
        return None
    return whole.strip()[len(begin.strip()) :].strip() or None


def _ranked(values: list[Any], *, top: bool) -> Any:
    candidates, scores = values
    if not isinstance(candidates, list) or not isinstance(scores, list) or len(candidates) != len(scores):
        return None
    pairs = [(number_of(score), -at) for at, score in enumerate(scores)]
    known = [(score, at) for score, at in pairs if score is not None]
    if len({score for score, _ in known}) < 2:
        return None  # nothing is better than anything
    return candidates[-(max(known) if top else min(known))[1]]


def _of_two(values: list[Any], *, higher: bool) -> Any:
    one, other = number_of(values[1]), number_of(values[3])
    if one is None or other is None or one == other:
        return None
    return values[0] if (one > other) == higher else values[2]


def number_of(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _other(values: list[Any], base: int = 0) -> Any:
    pair = values[1] if len(values) == 2 and isinstance(values[1], list) else values[1:]
    at = picked(values[0], [("", "")] * len(pair), base) if len(pair) == 2 else None
    return pair[1 - at] if at is not None else None


_FUNCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "options": _options,
    "pick": _pick,
    "pick1": lambda values: _pick(values, 1),
    "final": _final,
    "turns": lambda values: as_turns(values[0]),
    "shared": _shared,
    "rest": _rest,
    "after": _after,
    "best": lambda values: _ranked(values, top=True),
    "worst": lambda values: _ranked(values, top=False),
    "lowest": lambda values: _ranked(values, top=False),
    "highest": lambda values: _ranked(values, top=True),
    "higher": lambda values: _of_two(values, higher=True),
    "lower": lambda values: _of_two(values, higher=False),
    "other": _other,
    "other1": lambda values: _other(values, 1),
}
