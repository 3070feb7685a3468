"""What a column of a data set holds, seen in its first rows: kind, how much of it is filled, lengths, a few values."""

from __future__ import annotations

import base64
import binascii
import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .expressions import final_answer, is_absent, value_of
from .turns import ASSISTANT, as_turns, from_json, marked_turns, marker_of

MOST_VALUES = 12
"""Up to so many different values are told one by one."""
LONGEST_VALUE = 60
"""Characters of a value that is told."""
USUAL = 0.9
"""Share of a column's values from which on they are all taken to be of a kind."""
LONGEST_NAME = 300
"""Characters of the name of a file."""
_IMAGE_NAMES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_AUDIO_NAMES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus")
_IMAGE_BYTES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_AUDIO_BYTES = (b"RIFF", b"fLaC", b"ID3", b"OggS", b"\xff\xfb")
_NUMBER = re.compile(r"[-+]?\$?(?:\d[\d,]*\.?\d*|\.\d+)%?")
_URL = re.compile(r"https?://\S+")
_NAME_OR_CODE = re.compile(r"[\w./:@-]{1,200}")


class Kind(StrEnum):
    EMPTY = "empty"
    TRUTH = "true or false"
    WHOLE = "whole numbers"
    NUMBER = "numbers"
    CLASS = "classes"
    TEXT = "text"
    TURNS = "conversations"
    MARKED = "conversations in one text"
    ALTERNATING = "lists of texts"
    RECORDS = "lists of objects"
    NUMBERS = "lists of numbers"
    OBJECT = "objects"
    IMAGE = "images"
    AUDIO = "recordings"
    OTHER = "other values"


@dataclass(frozen=True, slots=True)
class Column:
    """Facts of one column, or of a field inside it."""

    path: str
    kind: Kind
    filled: float
    """Share of the rows looked at where it says something."""
    rows: int
    """Rows looked at in which it is filled."""
    distinct: int = 0
    values: tuple[str, ...] = ()
    """All of them, the commonest first, where they are few."""
    characters: int = 0
    """Median length of a text, or of a conversation's turns together."""
    words: float = 0.0
    """Median number of words of a text."""
    pattern: str = ""
    """Of conversations: who speaks, the commonest order, `user, assistant` for example."""
    answered: float = 0.0
    """Share of the conversations that end in an answer."""
    marker: str = ""
    """What marks the turns inside one text."""
    names: tuple[str, ...] = ()
    """Of classes that are stored as numbers."""
    numeric: float = 0.0
    """Share of texts that are a number."""
    final: float = 0.0
    """Share of texts that end in a marked final answer."""
    coded: float = 0.0
    """Share of texts without a blank: identifiers, paths, addresses, single words."""
    unlike: float = 0.0
    """Share of values that occur once."""
    length: int = 0
    """Median length of lists."""
    fields: tuple[Column, ...] = field(default=())
    spelled: bool = False
    """The value is JSON in a text."""

    @property
    def is_text(self) -> bool:
        return self.kind in (Kind.TEXT, Kind.MARKED)

    @property
    def is_identifier(self) -> bool:
        """Its values name rows: nearly all different, and none of several words."""
        return self.is_text and self.coded >= USUAL and self.unlike >= USUAL and self.rows >= 3 and self.numeric < USUAL

    @property
    def is_constant(self) -> bool:
        """The same text in every row: a filler."""
        return self.kind in (Kind.TEXT, Kind.ALTERNATING) and self.distinct == 1 and self.rows > 3

    def evidence(self) -> str:
        """What was seen, in a few words."""
        said = [f"filled in {self.filled:.0%} of the rows"] if self.filled < 1 else []
        match self.kind:
            case Kind.TURNS | Kind.ALTERNATING if self.pattern:
                said.insert(0, f"conversations: {self.pattern}")
            case Kind.MARKED:
                said.insert(0, f"conversations in one text, marked like {self.marker!r}")
            case Kind.CLASS:
                said.insert(0, f"{len(self.names)} classes: {_listed(self.names)}")
            case Kind.TEXT:
                said[:0] = self._text_evidence()
            case Kind.TRUTH | Kind.WHOLE | Kind.NUMBER if self.values:
                said.insert(0, f"{self.kind}: {_listed(self.values)}")
            case Kind.OBJECT | Kind.RECORDS:
                said.insert(0, f"{self.kind} with {_listed([one.path.rpartition('.')[2] for one in self.fields])}")
            case Kind.ALTERNATING | Kind.NUMBERS if self.length:
                said.insert(0, f"{self.kind}, {self.length} in each")
            case _:
                said.insert(0, str(self.kind))
        return ", ".join(said)

    def _text_evidence(self) -> list[str]:
        if self.values and self.distinct * 2 <= self.rows:  # classes, not texts of somebody's rows
            return [f"{self.distinct} distinct value{'s' * (self.distinct != 1)}: {_listed(self.values)}"]
        said = [f"text of {self.characters:,} characters (median)", f"{self.unlike:.0%} unique"]
        if self.final >= USUAL:
            said.append("ends in a marked final answer")
        if self.numeric >= USUAL:
            said[0] = "numbers as text"
        return said


def _listed(values: Sequence[str]) -> str:
    shown = [value if len(value) <= 24 else value[:23] + "…" for value in values[:6]]
    return ", ".join(shown) + (" …" if len(values) > 6 else "")


def facts_of(rows: Sequence[Mapping[str, Any]], features: Mapping[str, Any] | None = None) -> list[Column]:
    """Every column of `rows` in the order of the data; `features` as the Hub has them (types of empty columns, names of
    classes). Rows of the dataset viewer do, too."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    types = _types(features)
    return [
        _facts_of_column([row.get(name) for row in rows], name, types.get(name), depth=0)
        for name in [*names, *(name for name in types if name not in names)]
    ]


def _types(features: Any) -> dict[str, Any]:
    """Column -> type, of the two forms in which the Hub writes features."""
    if isinstance(features, Mapping):
        return dict(features)
    if isinstance(features, list):
        return {one["name"]: one.get("type") for one in features if isinstance(one, Mapping) and "name" in one}
    return {}


def _facts_of_column(given: Sequence[Any], path: str, type_: Any, depth: int) -> Column:
    values = [value for value in given if not is_absent(value)]
    filled = len(values) / len(given) if given else 0.0
    if isinstance(type_, list) and len(type_) == 1:
        type_ = type_[0]  # a list of images
    kind_of_type = str(type_.get("_type", "")) if isinstance(type_, Mapping) else ""
    stored = {"Image": Kind.IMAGE, "Audio": Kind.AUDIO}.get(kind_of_type)
    if stored is not None or not values:
        return Column(path, stored or Kind.EMPTY, filled, len(values))
    if kind_of_type == "ClassLabel":
        names = tuple(str(name) for name in type_.get("names") or ())
        distinct = {str(value) for value in values}
        return Column(path, Kind.CLASS, filled, len(values), len(distinct), tuple(sorted(distinct)[:MOST_VALUES]),
                      names=names)  # fmt: skip
    if all(isinstance(value, str) for value in values):
        return _text_column(values, path, filled, depth)
    return _value_column(values, path, filled, depth)


def _value_column(values: Sequence[Any], path: str, filled: float, depth: int) -> Column:
    n = len(values)
    if all(isinstance(value, bool) for value in values):
        return _counted(values, Column(path, Kind.TRUTH, filled, n))
    if all(isinstance(value, int | float) for value in values):
        whole = all(float(value).is_integer() for value in values if abs(value) < 1e300)
        return _counted(values, Column(path, Kind.WHOLE if whole else Kind.NUMBER, filled, n))
    if (media := _media_kind(values)) is not None:
        return Column(path, media, filled, n)
    if all(isinstance(value, list | tuple) for value in values):
        return _list_column([list(value) for value in values], path, filled, depth)
    if all(isinstance(value, Mapping) for value in values):
        return _object_column(values, path, filled, depth)
    return Column(path, Kind.OTHER, filled, n)


def _counted(values: Sequence[Any], column: Column, **more: Any) -> Column:
    counts = Counter(str(value) for value in values)
    few = len(counts) <= MOST_VALUES and (len(counts) * 2 <= len(values) or len(counts) <= 3)
    few = few and max(map(len, counts)) <= LONGEST_VALUE
    once = sum(count == 1 for count in counts.values())
    return _with(
        column, distinct=len(counts), values=tuple(value for value, _ in counts.most_common()) if few else (),
        unlike=once / len(values), **more,
    )  # fmt: skip


def _with(column: Column, **more: Any) -> Column:
    said = {name: getattr(column, name) for name in Column.__dataclass_fields__}
    return Column(**(said | more))


def _text_column(values: Sequence[str], path: str, filled: float, depth: int) -> Column:
    n = len(values)
    if (media := _media_kind(values)) is not None:
        return Column(path, media, filled, n)
    spelled = [from_json(value) for value in values]
    if sum(value is not None for value in spelled) >= USUAL * n and depth < 3:
        inner = _value_column([value for value in spelled if value is not None], path, filled, depth)
        return _with(inner, spelled=True, characters=_median(len(value) for value in values))
    facts = {
        "characters": _median(len(value) for value in values),
        "words": float(_median(len(value.split()) for value in values)),
        "numeric": sum(bool(_NUMBER.fullmatch(value.strip())) for value in values) / n,
        "final": sum(final_answer(value) is not None for value in values) / n,
        "coded": sum(bool(_URL.fullmatch(value) or _NAME_OR_CODE.fullmatch(value)) for value in values) / n,
    }
    markers = Counter(marker_of(value) for value in values)
    marker, count = markers.most_common(1)[0]
    if marker is None or count < USUAL * n:
        return _counted(values, Column(path, Kind.TEXT, filled, n), **facts)
    turns = [found for value in values if (found := marked_turns(value))]
    told = _conversation_facts(turns)
    return _counted(values, Column(path, Kind.MARKED, filled, n), marker=marker, **facts, **told)


def _conversation_facts(turns: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    patterns = Counter(", ".join(turn["role"] for turn in one[:4]) + (" …" if len(one) > 4 else "") for one in turns)
    return {
        "pattern": patterns.most_common(1)[0][0] if patterns else "",
        "answered": sum(one[-1]["role"] == ASSISTANT for one in turns) / len(turns) if turns else 0.0,
    }


def _list_column(values: list[list[Any]], path: str, filled: float, depth: int) -> Column:
    n, length = len(values), _median(len(value) for value in values)
    elements = [one for value in values for one in value]
    if all(isinstance(one, str) for one in elements):
        if (media := _media_kind(elements)) is not None:
            return Column(path, media, filled, n, length=length)
        turns = [found for value in values if (found := as_turns(value))]
        distinct = set(elements)
        few = tuple(sorted(distinct)[:MOST_VALUES]) if len(distinct) <= MOST_VALUES else ()
        return Column(
            path, Kind.ALTERNATING, filled, n, distinct=len(distinct), values=few, length=length,
            characters=_median(len(one) for one in elements),
            words=float(_median(len(one.split()) for one in elements)),
            answered=_conversation_facts(turns)["answered"],
        )  # fmt: skip
    if all(isinstance(one, int | float) for one in elements):
        distinct_numbers = {str(one) for one in elements}
        few = tuple(sorted(distinct_numbers)) if len(distinct_numbers) <= MOST_VALUES else ()
        return Column(path, Kind.NUMBERS, filled, n, distinct=len(distinct_numbers), values=few, length=length)
    if (media := _media_kind(elements)) is not None:
        return Column(path, media, filled, n, length=length)
    if all(isinstance(one, Mapping) for one in elements):
        turns = [found for value in values if (found := as_turns(value))]
        if len(turns) >= USUAL * n:
            size = _median(sum(len(turn["content"]) for turn in one) for one in turns)
            return Column(path, Kind.TURNS, filled, n, length=length, characters=size, **_conversation_facts(turns))
        return Column(path, Kind.RECORDS, filled, n, length=length, fields=_fields(elements, path, depth))
    return Column(path, Kind.OTHER, filled, n, length=length)


def _object_column(values: Sequence[Mapping[str, Any]], path: str, filled: float, depth: int) -> Column:
    turns = [found for value in values if (found := as_turns(value))]
    if len(turns) >= USUAL * len(values):
        size = _median(sum(len(turn["content"]) for turn in one) for one in turns)
        return Column(path, Kind.TURNS, filled, len(values), characters=size, **_conversation_facts(turns))
    return Column(path, Kind.OBJECT, filled, len(values), fields=_fields(values, path, depth))


def _fields(objects: Sequence[Mapping[str, Any]], path: str, depth: int) -> tuple[Column, ...]:
    if depth >= 2:
        return ()
    names = dict.fromkeys(str(name) for one in objects for name in one)
    if len(names) > 60:
        return ()  # a table of its own
    return tuple(
        _facts_of_column([one.get(name) for one in objects], f"{path}.{name}", None, depth + 1) for name in names
    )


def _media_kind(values: Sequence[Any]) -> Kind | None:
    """Of most values; some of a set may be in a format that is not known here."""
    kinds = Counter(_media_kind_of(value) for value in values[:20])
    known = [kind for kind in kinds if kind is not None]
    return known[0] if len(known) == 1 and kinds[known[0]] * 2 >= kinds.total() else None


def is_media_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) < LONGEST_NAME and value.lower().endswith(_IMAGE_NAMES + _AUDIO_NAMES)


def _media_kind_of(value: Any) -> Kind | None:
    """Images and recordings as bytes, as base64, as the name of a file, or as the dataset viewer's address."""
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes | str):
            return _media_kind_of(value["bytes"]) or _media_kind_of(value.get("path"))
        if isinstance(value.get("src"), str):
            return Kind.IMAGE if "height" in value else _media_kind_of(value["src"].partition("?")[0])
        if "array" in value and "sampling_rate" in value:
            return Kind.AUDIO
        return _media_kind_of(value["path"]) if isinstance(value.get("path"), str) and len(value) <= 3 else None
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and isinstance(value[0].get("src"), str):
        return Kind.AUDIO if str(value[0].get("type", "")).startswith("audio") else None
    if isinstance(value, bytes):
        return _kind_of_bytes(value)
    if not isinstance(value, str) or " " in value.strip():
        return None
    if len(value) < LONGEST_NAME and value.lower().endswith(_IMAGE_NAMES):
        return Kind.IMAGE
    if len(value) < LONGEST_NAME and value.lower().endswith(_AUDIO_NAMES):
        return Kind.AUDIO
    try:
        start = (value.partition("base64,")[2] or value)[:64]
        return (
            _kind_of_bytes(base64.b64decode(start[: len(start) // 4 * 4], validate=True)) if len(value) > 40 else None
        )
    except (binascii.Error, ValueError):
        return None


def _kind_of_bytes(value: bytes) -> Kind | None:
    if value.startswith(_IMAGE_BYTES) or (value.startswith(b"RIFF") and value[8:12] == b"WEBP"):
        return Kind.IMAGE
    return Kind.AUDIO if value.startswith(_AUDIO_BYTES) else None


def _median(numbers: Any) -> int:
    found = list(numbers)
    return int(statistics.median_low(found)) if found else 0


# --- Of two columns ---------------------------------------------------------------------------------------------------


def texts_at(rows: Sequence[Mapping[str, Any]], path: str) -> list[str]:
    """What an expression says of each row, white space made one; "" where it is no text."""
    found = []
    for row in rows:
        value = value_of(path, row)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:g}" if isinstance(value, float) else str(value)
        if isinstance(value, list | dict):
            turns = as_turns(value)
            value = turns[-1]["content"] if turns else json.dumps(value)
        found.append(" ".join(value.split()) if isinstance(value, str) else "")
    return found


def containing(rows: Sequence[Mapping[str, Any]], outer: str, inner: str) -> float:
    """Share of the rows with both in which the text of `outer` holds that of `inner`."""
    pairs = [(one, other) for one, other in zip(texts_at(rows, outer), texts_at(rows, inner), strict=True)
             if one and other]  # fmt: skip
    return sum(other in one for one, other in pairs) / len(pairs) if pairs else 0.0
