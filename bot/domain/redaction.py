"""Secrets kept out of every text that leaves: exact values and known shapes, plain, encoded, or parted by a line break.

Looked through are the text itself, its base64 and hex parts decoded, and the text without percent signs, backslash
escapes, invisible characters and line breaks, one of these at a time. What is found in one of them goes from where it
stands in the text; everything else stays as it is. Time is linear in the length of the text.

Not covered: a secret encoded twice, reversed or spelled out on purpose. Redaction is the last fence, not the
containment: what runs untrusted code is never given a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise, zip_longest
from typing import Any
from urllib.parse import quote, quote_plus

from bot.domain.secret_shapes import Shape, shape_spans

MARK = "[redacted]"
_SHORTEST = 6
"""A known value shorter than this is not searched for: it would blank ordinary words."""
_CUT = 8
"""Characters that a known value may lack at either end and still be recognised."""
_LONGEST_LINE_END = 600
"""Characters before a line break that are looked at for the beginning of a secret that goes on behind it."""

Span = tuple[int, int]

_BREAK = re.compile(r"([ \t]*+(?:\r?\n|\\n)[ \t]*+)")
_PARTED = re.compile(
    r"(?<=[A-Za-z0-9_\-./+=%:]{4})[ \t]{0,8}(?:\r?\n|\\n)[ \t]{0,40}(?=([A-Za-z0-9_\-./+=%:@]{2,2000}+))"
)
_PERCENT = re.compile(r"(%[0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"(\\(?:u00[0-9A-Fa-f]{2}|x[0-9A-Fa-f]{2}|[/\"'\\]))")
_INVISIBLE = re.compile(
    "([\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]+)"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{16,}+")
_HEX = re.compile(r"[0-9A-Fa-f]{24,}+")
_STANDARD = str.maketrans("-_", "+/")
_NEXT_LINE = re.compile(r"[ \t]{0,8}(?:\r?\n|\\n)[ \t]{0,40}([A-Za-z0-9_\-./+=]{8,}+)")
_WALL = "\0\n\0"
"""Between the pieces of a batch; no shape reaches over it."""


def redact(text: str, known: Sequence[str] = ()) -> str:
    """`text` with every secret in it replaced by a mark. `known` are exact values, whatever they look like."""
    parts, position = [], 0
    for start, end in secret_spans(text, known):
        parts += [text[position:start], MARK]
        position = end
    return "".join([*parts, text[position:]]) if parts else text


def secret_spans(text: str, known: Sequence[str] = ()) -> list[Span]:
    """Where the secrets stand in `text`, ascending and apart."""
    values = _known_values(tuple(sorted({value for value in known if len(value) >= _SHORTEST})))
    spans = list(_spans(text, values))
    return list(_merged(_with_next_lines(text, _merged(spans)))) if spans else []


def redacted(value: Any, known: Sequence[str] = ()) -> Any:
    """A copy of a JSON value with every string in it redacted, keys included."""
    if isinstance(value, str):
        return redact(value, known)
    if isinstance(value, dict):
        return {redacted(key, known): redacted(content, known) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(content, known) for content in value]
    return value


def redacted_bytes(content: bytes, known: Sequence[str] = ()) -> bytes:
    """A file's content redacted; bytes that are no text pass unchanged."""
    text = content.decode("utf-8", "surrogateescape")
    return redact(text, known).encode("utf-8", "surrogateescape")


def _spans(text: str, known: _Known | None) -> Iterator[Span]:
    """Where secrets stand in `text`; spans may overlap."""
    yield from _plain(text, known)
    yield from _across_breaks(text)
    joined = _View.of(text, _BREAK, lambda _: "") if "\n" in text or "\\n" in text else _View(text, (), (), True)
    for start, end in _encoded(joined.text):
        yield joined.span(start, end)
    if known is not None and joined.places:
        for start, end in known.spans(joined.text):
            yield joined.span(start, end)
    for view in _views(text):
        for start, end in _plain(view.text, known):
            yield view.span(start, end)


def _plain(text: str, known: _Known | None) -> Iterator[Span]:
    if known is not None:
        yield from known.spans(text)
    for start, end, _ in shape_spans(text):
        yield start, end


def _views(text: str) -> Iterator[_View]:
    if "%" in text and _PERCENT.search(text):
        yield _View.of(text, _PERCENT, lambda escape: chr(int(escape[1:], 16)))
    if "\\" in text and _ESCAPE.search(text):
        yield _View.of(text, _ESCAPE, lambda escape: chr(int(escape[2:], 16)) if len(escape) > 2 else escape[1])
    if not text.isascii() and _INVISIBLE.search(text):
        yield _View.of(text, _INVISIBLE, lambda _: "")


@dataclass(frozen=True, slots=True)
class _View:
    """A text with parts of it replaced by one character each or by none, and the way back to where things stood."""

    text: str
    places: Sequence[int]
    """Where in `text` something was replaced, ascending."""
    shifts: Sequence[int]
    """How far the original is ahead behind each place."""
    removes: bool

    @classmethod
    def of(cls, text: str, pattern: re.Pattern[str], replacement: Callable[[str], str]) -> _View:
        """`pattern` is one group; `replacement` makes one character of each match, or the empty text of every one."""
        pieces = pattern.split(text)
        kept, old = pieces[::2], pieces[1::2]
        removes = not old or not replacement(old[0])
        new = [""] * len(old) if removes else [replacement(each) for each in old]
        width = 0 if removes else 1
        places = list(accumulate(len(piece) + width for piece in kept[:-1]))
        if not removes:
            places = [place - 1 for place in places]
        shifts = list(accumulate(len(each) - width for each in old))
        return cls("".join(chain.from_iterable(zip_longest(kept, new, fillvalue=""))), places, shifts, removes)

    def span(self, start: int, end: int) -> Span:
        """Where a stretch of the view stands in the original."""
        before = (bisect_right if self.removes else bisect_left)(self.places, start)
        behind = bisect_left(self.places, end)
        return (
            start + (self.shifts[before - 1] if before else 0),
            end + (self.shifts[behind - 1] if behind else 0),
        )


def _batched(pieces: Sequence[str], *, split: bool = False) -> Iterator[tuple[int, int, int, Shape]]:
    """`shape_spans` of many short texts at once: (which, start, end, shape)."""
    starts = [0, *accumulate(len(piece) + len(_WALL) for piece in pieces)]
    for start, end, shape in shape_spans(_WALL.join(pieces), split=split):
        which = bisect_right(starts, start) - 1
        if end - starts[which] <= len(pieces[which]):
            yield which, start - starts[which], end - starts[which], shape


# --- encoded parts


def _encoded(text: str) -> Iterator[Span]:
    """Secrets of known shape inside the base64 and hex parts of `text`, at every offset they can have there."""
    runs = [(match.start(), match[0].translate(_STANDARD)) for match in _BASE64.finditer(text)]
    for offset in range(4) if runs else ():
        for which, start, end, _ in _batched([_base64_text(run[offset:]) for _, run in runs]):
            origin, run = runs[which]
            first = origin + offset
            yield first + start // 3 * 4, min(origin + len(run), first + -(-end // 3) * 4)
    runs = [(match.start(), match[0]) for match in _HEX.finditer(text)]
    for offset in range(2) if runs else ():
        decoded = [bytes.fromhex(run[offset : len(run) - (len(run) - offset) % 2]).decode("latin-1") for _, run in runs]
        for which, start, end, _ in _batched(decoded):
            first = runs[which][0] + offset
            yield first + 2 * start, first + 2 * end


def _base64_text(run: str) -> str:
    """What `run` of the standard alphabet stands for, its padding added; one stray character at the end is left out."""
    run = run[: len(run) - (len(run) % 4 == 1)]
    return binascii.a2b_base64(run + "=" * (-len(run) % 4)).decode("latin-1")


# --- secrets parted by a line break


def _across_breaks(text: str) -> Iterator[Span]:
    """Secrets of known shape whose second part stands at the beginning of the next line."""
    windows: list[tuple[int, str, int, str]] = []
    for match in _PARTED.finditer(text):
        cut, right = match.start(), match[1]
        begin = max(text.rfind("\n", 0, cut) + 1, cut - _LONGEST_LINE_END)
        if cut - begin + len(right) >= 16:
            windows.append((begin, text[begin:cut], match.start(1), right))
    if not windows:
        return
    complete = {
        (which, start) for which, start, end, _ in _batched([left for _, left, _, _ in windows], split=True)
        if end == len(windows[which][1])
    }  # fmt: skip
    for which, start, end, shape in _batched([left + right for _, left, _, right in windows], split=True):
        begin, left, behind, right = windows[which]
        if not start < len(left) < end:
            continue
        # Where what stands before the break is a whole secret by itself, the next line may be another matter.
        if end - start == shape.length or (which, start) not in complete or _drawn_by_lot(right):
            yield begin + start, behind + end - len(left)


def _with_next_lines(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Each span, longer by the lines behind it that go on like it: a long token that somebody's terminal wrapped.

    `spans` are in order and apart; each line is looked at once.
    """
    reached = 0
    for start, end in spans:
        end = max(end, reached)
        while (match := _NEXT_LINE.match(text, end)) and _drawn_by_lot(match[1]):
            end = match.end()
        reached = end
        yield start, end


def _drawn_by_lot(run: str) -> bool:
    """True for what no person writes: small letters, capitals and digits that change places all the time."""
    kinds = ["0" if c.isdigit() else "A" if c.isupper() else "a" for c in run[:200] if c.isalnum()]
    changes = sum(one != other for one, other in pairwise(kinds))
    return len(kinds) >= 8 and len(set(kinds)) == 3 and changes >= 0.35 * len(kinds)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    last: Span | None = None
    for start, end in sorted(spans):
        if last is not None and start <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last is not None:
            yield last
        last = (start, end)
    if last is not None:
        yield last


# --- known values


@dataclass(frozen=True, slots=True)
class _Known:
    """Every form of the known values, found by their middles and then followed to both sides."""

    pattern: re.Pattern[str]
    sides: dict[str, list[tuple[str, str]]]
    """Middle -> what stands before and behind it in each form that has it."""

    def spans(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text):
            start, end = match.span()
            for before, behind in self.sides[match[0]]:
                left = _common(before[::-1], text[max(0, match.start() - len(before)) : match.start()][::-1])
                right = _common(behind, text[match.end() : match.end() + len(behind)])
                start, end = min(start, match.start() - left), max(end, match.end() + right)
            yield start, end


def _common(a: str, b: str) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@lru_cache(maxsize=32)
def _known_values(known: tuple[str, ...]) -> _Known | None:
    """None when there are none."""
    sides: dict[str, list[tuple[str, str]]] = {}
    for form in sorted(_forms(known)):
        cut = _CUT if len(form) >= 12 + 2 * _CUT else 0
        sides.setdefault(form[cut : len(form) - cut], []).append((form[:cut], form[len(form) - cut :]))
    return _Known(re.compile(_any_of(list(sides))), sides) if sides else None


def _any_of(words: list[str]) -> str:
    """A pattern for any of the words, longest first; grouped by beginnings, because a key has hundreds of forms."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(word)
    alternatives = []
    for first, group in sorted(groups.items()):
        by_two: dict[str, list[str]] = {}
        for word in group:
            by_two.setdefault(word[1:2], []).append(word[2:])
        rests = []
        for second, tails in sorted(by_two.items()):
            longest_first = sorted(tails, key=lambda tail: (-len(tail), tail))
            rests.append(re.escape(second) + f"(?:{'|'.join(re.escape(tail) for tail in longest_first)})")
        alternatives.append(re.escape(first) + f"(?:{'|'.join(rests)})")
    return "|".join(alternatives)


def _forms(known: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for value in known:
        # A PEM key is also shown line by line; encoded as a whole, its shape tells.
        found |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 16 and "-----" not in line}
        for piece in {value, value.strip(), "".join(value.split())}:
            raw = piece.encode("utf-8", "surrogatepass")
            found |= {piece, piece.replace("\n", "\\n"), json.dumps(piece)[1:-1], raw.hex(), raw.hex().upper()}
            found |= {quote(raw, safe=""), quote(raw), quote_plus(raw)}
            found |= _base64_forms(raw)
    return {form for form in found if len(form) >= _SHORTEST}


def _base64_forms(raw: bytes) -> set[str]:
    """How `raw` looks inside a base64 text, at each of the three offsets it can have there."""
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            encoded = encode(b"\0" * offset + raw).decode().rstrip("=")
            # Characters that share bits with a neighbouring byte are not certain, so they are left out.
            start = (0, 2, 3)[offset]
            end = len(encoded) - (1 if (offset + len(raw)) % 3 else 0)
            if end - start >= 8:
                forms.add(encoded[start:end])
    return forms
