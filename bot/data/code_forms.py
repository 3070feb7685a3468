"""Code compared by its form: names, comments, doc-strings, layout and the contents of strings do not count.

Tokens are read by one expression that fits most languages; names that belong to a language (keywords, built-in
functions and methods) stay, all others become one token. Two pieces of code match when runs of such tokens agree and
the names in them were replaced one by one (parameterised matching, Baker, STOC 1993).

Not covered: code whose statements were reordered or rewritten, and items of less than `FEWEST_TOKENS` tokens, which are
looked for by their words alone.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from bot.data.item_index import Run, Span

WINDOW = 14
"""Tokens of a run. Shorter ones are idioms: `for i in range(len(x)):` has twelve."""
FEWEST_TOKENS = 24
_FEWEST_WINDOWS = 6
_SHARE = 0.6
# A run that is nothing but names and commas says nothing, and one that many items share is a language's habit.
_FEWEST_OPERATORS = 5
_COMMON_SHARE, _COMMON_ITEMS = 0.05, 3
_CONSISTENT = 0.9
_NAME, _TEXT = "n", "s"

_OTHER_LANGUAGES = (  # noqa: SIM905
    "abstract auto boolean break byte case catch char const constexpr continue default defer delete do double elif else "
    "elseif end enum explicit export extends extern final finally float fn for foreach from func function go goto if "
    "impl implements import in include inline instanceof int interface let long loop match mod module mut namespace new "
    "null nullptr of operator package private protected public pub range ref register return select self short signed "
    "sizeof static string struct super switch template then this throw throws trait true false try type typedef typeof "
    "undefined union unless unsigned until use using val var vector virtual void volatile when where while with yield "
    "push_back begin size length push map filter reduce forEach indexOf slice substring charAt toString parseInt Math "
    "console log println printf cout endl std String Integer List ArrayList HashMap Optional Tuple Dict Any Vec Some "
    "None Ok Err unwrap iter collect chars"
).split()
_KEPT = frozenset(
    [*keyword.kwlist, *(name for name in dir(builtins) if not name.startswith("_")), *_OTHER_LANGUAGES]
    + [name for kind in (str, list, dict, set, bytes, int, float) for name in dir(kind) if not name.startswith("_")]
)
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


def code_tokens(code: str) -> list[str]:
    """Tokens without comments and doc-strings; the content of strings left out."""
    hidden = _PYTHON_HIDDEN if _IS_PYTHON.search(code) else _OTHER_HIDDEN
    shown = hidden.sub(lambda found: ' "" ' if found.lastgroup == "text" else " ", code)
    return _TOKEN.findall(shown.replace(' "" ', f" {_TEXT}0 "))


def form_of(tokens: Iterable[str]) -> list[str]:
    """Names that are nobody's in particular become one token; numbers and signs stay."""
    return [_NAME if _is_own_name(token) else token for token in tokens]


def _is_own_name(token: str) -> bool:
    return (token[0].isalpha() or token[0] == "_") and token not in _KEPT and token != f"{_TEXT}0"


class CodeItems:
    """Items that hold code: each of them whole, and its reference by itself."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """From prompt and reference of each item."""
        self._items: list[int] = []
        self._tokens: list[list[str]] = []
        for number, (prompt, reference) in enumerate(texts):
            asked = code_in(prompt)
            # A reference that goes on where the code of the prompt ends (HumanEval's bodies) need not look like code.
            answered = code_in(reference) or (reference if asked else "")
            for code in {answered, f"{asked}\n{answered}"} if asked or answered else ():
                if len(tokens := code_tokens(code)) >= FEWEST_TOKENS:
                    self._items.append(number)
                    self._tokens.append(tokens)
        forms = [form_of(tokens) for tokens in self._tokens]
        counts = Counter(window for form in forms for window in set(map(hash, _windows(form))))
        limit = 2 * max(_COMMON_ITEMS, _COMMON_SHARE * len(forms))  # most items are here twice
        self._holders: dict[int, list[tuple[int, int]]] = {}
        """Hash of a window -> the forms, and the places in them, where it stands."""
        self._telling: dict[int, int] = {}
        """Form -> how many different windows tell it."""
        for which, form in enumerate(forms):
            telling = [
                (place, hash(run))
                for place, run in enumerate(_windows(form))
                if counts[hash(run)] <= limit and _says_something(run)
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
        tokens = code_tokens(code)
        windows = list(map(hash, _windows(form_of(tokens))))
        seen: dict[int, set[int]] = {}
        shifts: dict[int, Counter[int]] = {}
        for place, window in enumerate(windows):
            for which, at in self._holders.get(window, ()):
                seen.setdefault(which, set()).add(window)
                shifts.setdefault(which, Counter())[place - at] += 1
        for which, held in seen.items():
            score = len(held) / self._telling[which]
            shift = shifts[which].most_common(1)[0][0]
            if score >= _SHARE and _renamed_one_by_one(self._tokens[which], tokens, shift):
                start, end = max(0, shift), min(len(tokens), shift + len(self._tokens[which]))
                yield Span(self._items[which], "renamed code", start, end, score), " ".join(tokens[start:end])


def _windows(form: Sequence[str]) -> Iterable[Run]:
    return zip(*(form[offset:] for offset in range(WINDOW)), strict=False)


def _says_something(run: Run) -> bool:
    return len({token for token in run if token not in (_NAME, ",", "(", ")", ".")}) >= _FEWEST_OPERATORS


def _renamed_one_by_one(item: Sequence[str], row: Sequence[str], shift: int) -> bool:
    """Whether, along one alignment of the two, each name of the item stands for one name of the row."""
    pairs = Counter(
        (own, row[place + shift])
        for place, own in enumerate(item)
        if 0 <= place + shift < len(row) and _is_own_name(own) and _is_own_name(row[place + shift])
    )
    if not pairs:
        return False
    best_of_item: dict[str, int] = {}
    best_of_row: dict[str, int] = {}
    for (own, other), count in pairs.items():
        best_of_item[own] = max(best_of_item.get(own, 0), count)
        best_of_row[other] = max(best_of_row.get(other, 0), count)
    total = sum(pairs.values())
    return min(sum(best_of_item.values()), sum(best_of_row.values())) >= _CONSISTENT * total
