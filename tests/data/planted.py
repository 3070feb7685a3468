"""A corpus with evaluation items planted in it in known ways, and much beside them that only resembles items.

Prose is drawn from English function words and invented content words with Zipf's frequencies; code is the standard
library's own functions, read where the test runs; paraphrases are written by hand.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import itertools
import json
import keyword
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bot.data.rows import Item

EXACT = ("exact", "cased and punctuated", "truncated", "prompt only", "answer only", "inside a document")
FORMS = ("renamed code", "shuffled choices")
REWORDED = ("every sixth word replaced", "paraphrase")
CLASSES = (*EXACT, *FORMS, *REWORDED)

PARAPHRASES = Path(__file__).with_name("paraphrased.jsonl")
"""Questions with their answers, each asked a second time in other words."""

_FUNCTION_WORDS = """
    the of and to a in is that it for as was with be by on not he this are or his from at which but have an had they
    you were there one all we can her has so if when its into more their two will would what about them out then no up
    my some could time these other only than do any how after each our first such many between most over even
"""
# Items are made of functions of these modules, and what only resembles them of the others'.
_SOURCE_MODULES = """
    textwrap shlex fractions statistics colorsys difflib heapq bisect csv string calendar fnmatch glob netrc quopri
    random sched tokenize zipfile configparser cmd bdb gzip
"""
_OTHER_MODULES = """
    argparse ast asyncio.base_events base64 codecs copy dataclasses datetime decimal email.message email.header
    email.utils functools hashlib html.parser http.client http.cookies imaplib inspect ipaddress json.decoder
    json.encoder locale mailbox mimetypes numbers optparse os pathlib pickle platform plistlib posixpath pprint queue
    selectors shelve shutil smtplib socket socketserver ssl stat subprocess tarfile tempfile threading timeit
    traceback turtle types typing unittest.case unittest.mock urllib.parse urllib.request uuid warnings wave weakref
    xml.dom.minidom xml.etree.ElementTree zipapp
"""


@dataclass(frozen=True)
class Corpus:
    items: list[Item]
    rows: list[dict[str, Any]]
    truth: dict[int, tuple[str, str]]
    """Row -> (id of the item planted in it, class)."""


def corpus(seed: int, each: int, decoys: int) -> Corpus:
    """`each` items of every class (fewer paraphrases and functions where there are not so many), each planted once."""
    rng = random.Random(seed)
    items: list[Item] = []
    planted: list[tuple[str, str, dict[str, Any]]] = []

    def plant(kind: str, item: Item, row: dict[str, Any]) -> None:
        items.append(item)
        planted.append((item.id, kind, row))

    for kind in (*EXACT, "every sixth word replaced"):
        for place in range(each):
            item = Item(f"{kind}/{place}", sentence(rng, 40, 25), sentence(rng, 20, 10))
            plant(kind, item, _prose_row(kind, item, rng))
    for place in range(each):
        item, row = _choices(rng, f"shuffled choices/{place}")
        plant("shuffled choices", item, row)
    for place, (source, name) in enumerate(_unlike(_SOURCE_MODULES, _OTHER_MODULES)[0][:each]):
        item = Item(f"renamed code/{place}", *_divided(source))
        plant("renamed code", item, {"prompt": f"Write {name} again, please.", "completion": renamed(source, rng)})
    for place, line in enumerate(PARAPHRASES.read_text(encoding="utf-8").splitlines()[:each]):
        row = json.loads(line)
        item = Item(f"paraphrase/{place}", row["question"], row["answer"])
        plant("paraphrase", item, {"prompt": row["reworded"]})
    rows = [row for _, _, row in planted] + list(itertools.islice(_decoys(rng), decoys))
    order = rng.sample(range(len(rows)), len(rows))
    truth = {new: planted[old][:2] for new, old in enumerate(order) if old < len(planted)}
    return Corpus(items, [rows[old] for old in order], truth)


def _prose_row(kind: str, item: Item, rng: random.Random) -> dict[str, Any]:
    other = sentence(rng, 30, 10)
    words = item.prompt.split()
    match kind:
        case "exact":
            return {"prompt": item.prompt, "completion": item.reference}
        case "cased and punctuated":
            return {"prompt": " -- ".join(item.prompt.upper().split(" ", 3)), "completion": f"<<{item.reference}>>"}
        case "truncated":
            return {"text": " ".join(words[: max(12, len(words) // 2)])}
        case "prompt only":
            return {"messages": [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": other}]}
        case "answer only":
            return {"question": other, "answer": item.reference}
        case "inside a document":
            return {"text": f"{sentence(rng, 300, 200)} {item.prompt} {sentence(rng, 300, 200)}"}
        case _:
            shift = rng.randrange(6)
            return {"prompt": " ".join(_word(rng) if n % 6 == shift else word for n, word in enumerate(words))}


def _decoys(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Prose, questions with choices, forms filled in, and other functions, some of them with their names changed."""
    functions = itertools.cycle(_unlike(_SOURCE_MODULES, _OTHER_MODULES)[1])
    while True:
        yield {"prompt": sentence(rng, 60, 20), "completion": sentence(rng, 60, 5)}
        yield {"text": sentence(rng, 250, 100)}
        yield _choices(rng, "")[1]
        source, name = next(functions)
        code = renamed(source, rng) if rng.random() < 0.5 else source
        yield {"prompt": f"Write {name}.", "completion": f"```python\n{code}\n```"}
        amount = rng.randrange(1000)
        yield {
            "prompt": f"Tell me, please, what the sum of {amount} and {rng.randrange(1000)} comes to.",
            "completion": "?",
        }


# --- Prose ------------------------------------------------------------------------------------------------------------


@cache
def sentence_words() -> tuple[list[str], list[float]]:
    """Words, commonest first, and the sums of their frequencies up to each."""
    rng = random.Random(0)
    made = list(dict.fromkeys(
        "".join(rng.choice("bcdfglmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
        + rng.choice(("", "n", "r", "s", "t", "ly", "ing"))
        for _ in range(30_000)
    ))  # fmt: skip
    words = [*_FUNCTION_WORDS.split(), *made]
    return words, list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(words))))


def _word(rng: random.Random) -> str:
    words, weights = sentence_words()
    return rng.choices(words, cum_weights=weights)[0]


def sentence(rng: random.Random, most: int, fewest: int) -> str:
    words, weights = sentence_words()
    text = rng.choices(words, cum_weights=weights, k=rng.randint(fewest, most))
    for place in range(rng.randint(5, 15), len(text), 12):
        text[place] += rng.choice((",", ".", ";", " \u2013"))
    return " ".join(text).capitalize() + "."


def _choices(rng: random.Random, name: str) -> tuple[Item, dict[str, Any]]:
    """A short question with four short choices, and a row that has them in another order."""
    words = sentence_words()[0][len(_FUNCTION_WORDS.split()) :]
    stem = f"Which {rng.choice(words)} {rng.choice(words)} a {rng.choice(words)}?"
    choices = [" ".join(rng.sample(words, rng.randint(1, 2))) for _ in range(4)]
    moved = choices[1:] + choices[:1]
    rng.shuffle(moved)
    if moved == choices:
        moved.reverse()
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", choices, strict=True))
    again = "\n".join(f"({letter}) {text}" for letter, text in zip("abcd", moved, strict=True))
    answer = rng.choice("ABCD")
    return Item(name, f"{stem}\n{listed}", answer), {
        "prompt": f"{stem}\nOptions:\n{again}",
        "completion": answer.lower(),
    }


# --- Code -------------------------------------------------------------------------------------------------------------


@cache
def _functions(modules: str) -> list[tuple[str, str]]:
    """(source, name) of the functions of 5 to 40 lines and twenty tokens in these modules of the standard library."""
    found = []
    for module in modules.split():
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        text = Path(spec.origin).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and not node.decorator_list and node.end_lineno is not None:
                body = [each for each in node.body if not _is_docstring(each)]
                code = ast.unparse(ast.Module(body, []))
                tokens = re.findall(r"\w+|[^\w\s(),]", code)
                if 5 <= len(code.splitlines()) <= 40 and len(tokens) >= 20 and _has_logic(node):
                    found.append((_dedented(text, node), node.name))
    return found


@cache
def _unlike(*groups: str) -> list[list[tuple[str, str]]]:
    """The functions of each group of modules without those that share text or form with an earlier one: a library
    repeats itself, and of a function that is there twice nobody could say from which of the two a row was made."""
    seen_words: set[tuple[str, ...]] = set()
    seen_forms: set[tuple[str, ...]] = set()
    kept: list[list[tuple[str, str]]] = []
    for group in groups:
        kept.append([])
        for source, name in _functions(group):
            words = _runs(re.findall(r"[^\W_]+", source.lower()), 8)
            forms = _runs([_kind(token) for token in re.findall(r"\w+|[^\w\s]", ast.unparse(ast.parse(source)))], 12)
            if seen_words.isdisjoint(words) and len(seen_forms & forms) <= 0.25 * len(forms):
                kept[-1].append((source, name))
                seen_words |= words
                seen_forms |= forms
    return kept


def _runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[offset:] for offset in range(length)), strict=False))


def _kind(token: str) -> str:
    return token if keyword.iskeyword(token) or not token[0].isalpha() else "name"


def _has_logic(node: ast.FunctionDef) -> bool:
    return any(isinstance(each, (ast.For, ast.While, ast.If, ast.comprehension)) for each in ast.walk(node))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _dedented(text: str, node: ast.FunctionDef) -> str:
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] if line[: node.col_offset].isspace() else line for line in lines)


def _divided(source: str) -> tuple[str, str]:
    """Signature with its doc-string, and the body, as HumanEval divides them."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    first = next((each for each in function.body if not _is_docstring(each)), function.body[-1])
    lines = source.splitlines()
    return "\n".join(lines[: first.lineno - 1]), "\n".join(lines[first.lineno - 1 :])


def renamed(source: str, rng: random.Random) -> str:
    """The function with other names, without comments and doc-strings, in another layout."""
    tree = ast.parse(source)
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    new = {
        name: f"{rng.choice(('my', 'the', 'tmp'))}_{place}{rng.choice('xyz')}"
        for place, name in enumerate(sorted(names))
    }
    new = {name: other for name, other in new.items() if name not in dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = new.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = new.get(node.arg, node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.name = new.get(node.name, node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            node.names = [new.get(name, name) for name in node.names]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and len(node.body) > 1 and _is_docstring(node.body[0]):
            del node.body[0]
    return ast.unparse(tree)
