# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Verifiable rewards: what an answer is worth, decided by a rule that anybody can read.

    python rewards.py          # tries every example below; exit code 1 if one fails

A recipe names them: `reward_functions: exact_match,ends` with `reward_weights: 1,0.2`. Each has the signature that TRL
calls: `function(prompts, completions, reference, **more) -> list[float]`, one number for each completion. `reference`
holds the right answers, one for each completion; `more` brings every other column of the rows, `completion_ids`
(token ids), `finish` ("stop" where an answer ended by itself, "length" where it was cut) and `max_completion_length`.

To add one: write a function and put `@rewards(...)` above it with examples as (completion, reference, value). A
training script tries the examples, then the data's own references, before the first step. None means "does not apply
to this row" (TRL leaves such a reward out of the sum).
"""

import difflib
import json
import re
import sys
from collections.abc import Callable
from typing import Any

FUNCTIONS: dict[str, Callable[..., list[float | None]]] = {}
"""Name -> function, in the order of this file."""
BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")
THINKING = re.compile(r"<think>.+?</think>\s*\S", re.DOTALL)


def rewards(*examples: tuple[Any, ...], penalty: bool = False, **settings: Any) -> Callable[..., Any]:
    """Registers a reward with its examples: (completion, reference, value), and after them what else it is given.

    `penalty`: it takes away and never gives. `settings` are passed with every example.
    """

    def register(function: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
        function.examples, function.penalty, function.settings = examples, penalty, settings  # type: ignore[attr-defined]
        FUNCTIONS[function.__name__] = function
        return function

    return register


def text(completion: object) -> str:
    """The answer itself: a completion is a text, or a list of messages of which the last one counts."""
    if isinstance(completion, list):
        completion = completion[-1].get("content") if completion and isinstance(completion[-1], dict) else ""
    return "" if completion is None else str(completion)


# --- Is it right? ---------------------------------------------------------------------------------------------------


@rewards(("cba", "cba", 1.0), (" cba\n", "cba", 1.0), ("It is cba", "cba", 0.0), ("", "cba", 0.0), ("CBA", "cba", 0.0))
def exact_match(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the answer is the reference, white space around it aside."""
    return [float(text(one).strip() == str(right).strip()) for one, right in zip(completions, reference, strict=True)]


@rewards(("It is cba.", "cba", 1.0), ("cba", "cba", 1.0), ("cab", "cba", 0.0))
def contains(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the reference occurs somewhere in the answer. Easily satisfied by an answer that lists everything."""
    return [float(str(right).strip() in text(one)) for one, right in zip(completions, reference, strict=True)]


@rewards(
    ("So 6 * 7 = 42.", "42", 1.0),
    ("#### 1,234", "1234", 1.0),
    ("$3.50", "3.5", 1.0),
    ("It is -7", "-7", 1.0),
    ("\\boxed{42} because 2 + 40", "42", 1.0),
    ("41", "42", 0.0),
    ("none", "42", 0.0),
    ("42", "6 * 7 = 42\n#### 42", 1.0),
)
def numeric(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the last number of the answer (or the one in \\boxed{}) is the last number of the reference."""
    found = [
        (last_number(text(one)), last_number(str(right))) for one, right in zip(completions, reference, strict=True)
    ]
    return [
        float(one is not None and right is not None and abs(one - right) <= 1e-6 * max(1.0, abs(right)))
        for one, right in found
    ]


def last_number(words: str) -> float | None:
    boxed = BOXED.findall(words)
    numbers = NUMBER.findall(boxed[-1] if boxed else words)
    return float(numbers[-1].replace(",", "")) if numbers else None


@rewards(("\\boxed{x + 1}", "x+1", 1.0), ("\\boxed{2} or \\boxed{3}", "3", 1.0), ("3", "3", 0.0))
def boxed(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the last \\boxed{} holds the reference (its own \\boxed{}, if it has one), white space aside."""
    found = []
    for one, right in zip(completions, reference, strict=True):
        said, wanted = BOXED.findall(text(one)), BOXED.findall(str(right)) or [str(right)]
        found.append(float(bool(said) and "".join(said[-1].split()) == "".join(wanted[-1].split())))
    return found


@rewards(('{"b": 1, "a": [2]}', '{"a": [2], "b": 1}', 1.0), ('{"a": 2}', '{"a": 1}', 0.0), ("a: 1", '{"a": 1}', 0.0))
def json_equal(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the answer is JSON with the reference's value, whatever its spaces and the order of its keys."""
    pairs = [(parsed(text(one)), parsed(str(right))) for one, right in zip(completions, reference, strict=True)]
    return [float(one is not NOT_JSON and one == right) for one, right in pairs]


@rewards(("abcd", "abcd", 1.0), ("", "abcd", 0.0), ("abce", "abcd", 0.75))
def similarity(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """How much of the reference is there, 0 to 1: partial credit, for tasks where no first answer is ever right."""
    pairs = [(text(one).strip(), str(right).strip()) for one, right in zip(completions, reference, strict=True)]
    return [difflib.SequenceMatcher(None, one, right, autojunk=False).ratio() for one, right in pairs]


# --- Is it well-formed? Never enough alone: each of these is satisfied by a wrong answer. ---------------------------


@rewards(('{"a": 1}', "", 1.0), ("[1, 2]", "", 1.0), ("{'a': 1}", "", 0.0), ("", "", 0.0))
def json_valid(prompts: Any, completions: list[Any], **more: Any) -> list[float | None]:
    """1 where the answer is a JSON object or list and nothing else."""
    return [float(isinstance(parsed(text(one)), dict | list)) for one in completions]


@rewards(('{"xy": 7}', '{"ab": 12}', 1.0), ("xy 7", '{"ab": 12}', 0.0), ("cb", "abc", 1.0))
def shape(prompts: Any, completions: list[Any], reference: list[Any], **more: Any) -> list[float | None]:
    """1 where the answer has the reference's form: letters where it has letters, numbers where it has numbers."""
    pairs = zip(completions, reference, strict=True)
    return [float(form(text(one).strip()) == form(str(right).strip())) for one, right in pairs]


def form(words: str) -> str:
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", words))


@rewards(("<think>6*7</think>\n42", "42", 1.0), ("<think></think> 42", "42", 0.0), ("42", "42", 0.0))
def think_format(prompts: Any, completions: list[Any], **more: Any) -> list[float | None]:
    """1 where thoughts between <think> and </think> come first and an answer after them."""
    return [float(bool(THINKING.match(text(one).lstrip()))) for one in completions]


@rewards(("cba", "cba", 1.0, {"finish": ["stop"]}), ("cba", "cba", 0.0, {"finish": ["length"]}))
def ends(prompts: Any, completions: list[Any], finish: list[str], **more: Any) -> list[float | None]:
    """1 where the answer ended by itself, 0 where it was cut at max_completion_length."""
    return [float(how == "stop") for how in finish]


@rewards(
    ("short", "", 0.0, {"completion_ids": [[5] * 10]}),
    ("long", "", -0.5, {"completion_ids": [[5] * 90]}),
    ("cut", "", -1.0, {"completion_ids": [[5] * 100]}),
    penalty=True,
    max_completion_length=100,
)
def overlong(
    prompts: Any, completions: list[Any], completion_ids: list[list[int]], max_completion_length: int, **more: Any
) -> list[float | None]:
    """0 up to four fifths of max_completion_length, then falling to -1 at its end: the soft punishment of DAPO
    (https://arxiv.org/abs/2503.14476, equation 13, with a cache of a fifth)."""
    cache = max_completion_length / 5
    return [max(-1.0, min(0.0, (max_completion_length - cache - len(ids)) / cache)) for ids in completion_ids]


# --- Examples -------------------------------------------------------------------------------------------------------

NOT_JSON = object()


def parsed(words: str) -> object:
    try:
        return json.loads(words)
    except (ValueError, RecursionError):
        return NOT_JSON


def failed_examples(name: str) -> list[str]:
    """One line for each example of `name` that does not come out as it says."""
    function, wrong = FUNCTIONS[name], []
    for completion, reference, value, *rest in getattr(function, "examples", ()):
        given = {"finish": ["stop"], "completion_ids": [[0]], "max_completion_length": 512}
        given |= getattr(function, "settings", {}) | (rest[0] if rest else {})
        for said in (completion, [{"role": "assistant", "content": completion}]):
            found = function(prompts=[""], completions=[said], reference=[reference], **given)
            if len(found) != 1 or found[0] is None or abs(found[0] - value) > 1e-9:
                wrong.append(f"{name}: {completion!r} against {reference!r} is worth {found}, and should be {value}")
                break
    return wrong


def main() -> int:
    wrong = [line for name in FUNCTIONS for line in failed_examples(name)]
    for name, function in FUNCTIONS.items():
        print(f"{name}: {len(getattr(function, 'examples', ()))} examples")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
