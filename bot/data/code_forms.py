"""Code compared by its form: names, comments, doc-strings, layout and the contents of strings do not count.

Tokens are read by one expression that fits most languages; names that belong to a language (keywords, built-in
functions and methods) stay, all others become one token. Two pieces of code match when runs of such tokens agree and
the names in them were replaced one by one (parameterised matching, Baker, STOC 1993).

Not covered: code whose statements were reordered or rewritten, and items of less than `FEWEST_TOKENS` tokens, which are
looked for by their words alone.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bot.data.item_index import Run, Span

WINDOW = 10
"""Tokens of a run. Shorter ones are idioms: `for i in range(len(x)):` has eight without its brackets."""
FEWEST_TOKENS = 20
_FEWEST_WINDOWS = 6
_SHARE = 0.5
# A run that is nothing but names and commas says nothing, and one that many items share is a language's habit.
_FEWEST_OPERATORS = 3
_COMMON_SHARE, _COMMON_ITEMS = 0.05, 3
_CONSISTENT = 0.9
# No name of a program looks like these.
_NAME, _TEXT = "", "0s"

# Words of other languages, told from a program's own names wherever they stand.
_OTHER_LANGUAGES = """
    abstract auto boolean break byte case catch char const constexpr continue default defer delete do double elif else
    elseif end enum explicit export extends extern final finally float fn for foreach from func function go goto if
    impl implements import in include inline instanceof int interface let long loop mod mut namespace new null nullptr
    operator package private protected public pub ref register return select short signed sizeof static struct super
    switch template then throw throws trait true false try typedef typeof undefined union unless unsigned until using
    var virtual void volatile when where while with yield
"""
_OTHER_METHODS = """
    push_back begin end size length push map filter reduce forEach indexOf slice substring charAt toString unwrap iter
    collect chars log println
"""
_PYTHON_WORDS = frozenset(keyword.kwlist)
_OTHER_WORDS = frozenset([*keyword.kwlist, *_OTHER_LANGUAGES.split()])
_FUNCTIONS = frozenset(name for name in dir(builtins) if not name.startswith("_"))
"""Kept where they are no method."""
_METHODS = frozenset(
    [name for kind in (str, list, dict, set, bytes) for name in dir(kind) if not name.startswith("_")]
    + _OTHER_METHODS.split()
)
"""Kept after a dot; elsewhere they are names as any other."""
# Written or left out by taste.
_LAYOUT = frozenset("(),;\\")
_STRINGS = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"
_DOCSTRINGS = r"\"\"\"[\s\S]*?(?:\"\"\"|\Z)|'''[\s\S]*?(?:'''|\Z)"
# `//` is a division in Python, and `#include` is no comment in C.
_PYTHON_HIDDEN = re.compile(rf"(?P<doc>{_DOCSTRINGS})|#[^\n]*|(?P<text>{_STRINGS})")
_OTHER_HIDDEN = re.compile(
    rf"(?P<doc>{_DOCSTRINGS})|//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)|#(?!include|define|if|endif)[^\n]*|(?P<text>{_STRINGS})"
)
_TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*|[^\w\s]")
_IS_PYTHON = re.compile(
    r"^[ \t]*(?:async\s+)?(?:def|class|if|for|while|elif|with|try)\b[^\n;{]*:[ \t]*(?:#[^\n]*)?$", re.M
)
_IS_CODE = re.compile(
    r"^[ \t]*(?:(?:async\s+)?def \w+\s*\(|class \w+|import \w|from \w[\w.]* import |return\b|#include|"
    r"(?:(?:export|public|private|static|async|const|final|pub)\s+)*(?:function|func|fn|class|void|int|let|var|const|"
    r"double|bool|boolean|string|String|long|char|auto)\b[^\n]*[({=;]|(?:if|for|while)\b[^\n]*[:{]\s*$)",
    re.M,
)
_FENCE = re.compile(r"```[^\n]*\n([\s\S]*?)(?:```|\Z)")


def code_in(text: str) -> str:
    """The code of a text: its fenced blocks, else the whole text where lines of it are code, else nothing."""
    if "```" in text and (blocks := _FENCE.findall(text)):
        return "\n".join(blocks)
    return text if _IS_CODE.search(text) else ""


class Tokens(NamedTuple):
    """Code without its comments and doc-strings; the content of strings left out."""

    texts: list[str]
    form: list[str]
    """The same with one token for all names that are nobody's in particular."""

    @classmethod
    def of(cls, code: str) -> Tokens:
        python = _IS_PYTHON.search(code) is not None
        hidden = _PYTHON_HIDDEN if python else _OTHER_HIDDEN
        shown = hidden.sub(lambda found: f" {_TEXT} " if found.lastgroup == "text" else " ", code)
        texts = [token for token in _TOKEN.findall(shown) if token not in _LAYOUT]
        words, functions = (_PYTHON_WORDS, _FUNCTIONS) if python else (_OTHER_WORDS, frozenset())
        return cls(
            texts,
            [
                _NAME if _is_own_name(token, words, _METHODS if before == "." else functions) else token
                for before, token in zip(("", *texts), texts, strict=False)
            ],
        )

    def __len__(self) -> int:
        return len(self.texts)

    def names(self) -> dict[int, tuple[bool, str]]:
        """Place -> whether it is an attribute, and the name there: `self.path = path` has two names."""
        return {
            place: (place > 0 and self.texts[place - 1] == ".", self.texts[place])
            for place, token in enumerate(self.form)
            if token == _NAME
        }


def _is_own_name(token: str, words: frozenset[str], kept: frozenset[str]) -> bool:
    return (token[0].isalpha() or token[0] == "_") and token not in words and token not in kept


class CodeItems:
    """Items that hold code: each of them whole, and its reference by itself."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """From prompt and reference of each item."""
        self._items: list[int] = []
        self._codes: list[Tokens] = []
        for number, (prompt, reference) in enumerate(texts):
            asked = code_in(prompt)
            # A reference that goes on where the code of the prompt ends (HumanEval's bodies) need not look like code.
            answered = code_in(reference) or (reference if asked else "")
            for tokens in _variants({answered, f"{asked}\n{answered}"}):
                if len(tokens) >= FEWEST_TOKENS:
                    self._items.append(number)
                    self._codes.append(tokens)
        forms = [tokens.form for tokens in self._codes]
        holders = Counter(
            window
            for window, _ in {
                (hash(run), self._items[which]) for which, form in enumerate(forms) for run in _windows(form)
            }
        )
        limit = max(_COMMON_ITEMS, _COMMON_SHARE * len(set(self._items)))
        self._holders: dict[int, list[tuple[int, int]]] = {}
        """Hash of a window -> the forms, and the places in them, where it stands."""
        self._telling: dict[int, int] = {}
        """Form -> how many different windows tell it."""
        for which, form in enumerate(forms):
            telling = [
                (place, hash(run))
                for place, run in enumerate(_windows(form))
                if holders[hash(run)] <= limit and _says_something(run)
            ]
            if len(different := {window for _, window in telling}) < _FEWEST_WINDOWS:
                continue
            self._telling[which] = len(different)
            for place, window in telling:
                self._holders.setdefault(window, []).append((which, place))

    def __bool__(self) -> bool:
        return bool(self._telling)

    def found(self, texts: Iterable[str]) -> Iterable[tuple[Span, str]]:
        """Matches of a row's texts, in tokens of the code in them together, and those tokens."""
        code = "\n".join(filter(None, map(code_in, texts)))
        if not code:
            return
        tokens = Tokens.of(code)
        hits = self._hits(tokens)
        if not hits:
            return
        found = list(self._spans(tokens, hits))
        if not found and (parsed := _as_python(code)) is not None:
            tokens = Tokens.of(parsed)
            found = list(self._spans(tokens, self._hits(tokens)))
        for span in found:
            yield span, " ".join(tokens.texts[span.start : span.end])

    def _hits(self, tokens: Tokens) -> dict[int, list[tuple[int, int]]]:
        """Form -> (window of it, how far its place there is from its place here), for all windows that are known."""
        hits: dict[int, list[tuple[int, int]]] = {}
        for place, window in enumerate(map(hash, _windows(tokens.form))):
            for which, at in self._holders.get(window, ()):
                hits.setdefault(which, []).append((window, place - at))
        return hits

    def _spans(self, tokens: Tokens, hits: Mapping[int, Sequence[tuple[int, int]]]) -> Iterable[Span]:
        for which, held in hits.items():
            score = len({window for window, _ in held}) / self._telling[which]
            shift = Counter(shift for _, shift in held).most_common(1)[0][0]
            if score >= _SHARE and _renamed_one_by_one(self._codes[which], tokens, shift):
                start, end = max(0, shift), min(len(tokens), shift + len(self._codes[which]))
                yield Span(self._items[which], "renamed code", start, end, score)


def _variants(codes: Iterable[str]) -> Iterable[Tokens]:
    """Tokens of each code, and where it is Python those in the layout that Python itself writes."""
    for code in codes:
        tokens = Tokens.of(code)
        yield tokens
        parsed = _as_python(code) if tokens else None
        if parsed is not None and (others := Tokens.of(parsed)) != tokens:
            yield others


def _as_python(code: str) -> str | None:
    """The code as Python writes it: brackets, line breaks and quotes in one way, no doc-strings; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and the like are not our business
            return ast.unparse(ast.parse(textwrap.dedent(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _windows(form: Sequence[str]) -> Iterable[Run]:
    return zip(*(form[offset:] for offset in range(WINDOW)), strict=False)


def _says_something(run: Run) -> bool:
    return len({token for token in run if token not in (_NAME, ".")}) >= _FEWEST_OPERATORS


def _renamed_one_by_one(item: Tokens, row: Tokens, shift: int) -> bool:
    """Whether, along one alignment of the two, each name of the item stands for one name of the row."""
    others = row.names()
    pairs = Counter((name, others[place + shift]) for place, name in item.names().items() if place + shift in others)
    if not pairs:
        return False
    best_of_item: dict[tuple[bool, str], int] = {}
    best_of_row: dict[tuple[bool, str], int] = {}
    for (own, other), count in pairs.items():
        best_of_item[own] = max(best_of_item.get(own, 0), count)
        best_of_row[other] = max(best_of_row.get(other, 0), count)
    total = sum(pairs.values())
    return min(sum(best_of_item.values()), sum(best_of_row.values())) >= _CONSISTENT * total
