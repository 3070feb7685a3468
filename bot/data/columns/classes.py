"""A text, an image or a recording and what is said of it: for classifiers, speech recognition and plain texts."""

from __future__ import annotations

from .expressions import is_absent, number_of
from .facts import USUAL, Column, Kind, is_media_name
from .mapping import FEWEST, Table, Unclear, Use, key_of_role, named_use
from .names import LABELS, PAIRS, SPOKEN, TEXTS, is_about, rank_of, words_of

_MOST_CLASSES = 200
_NAMED_LIKE = ("_text", "_name", "_names", "_str")
_PLAIN = ("text", "content", "document", "body", "article", "code", "raw_content", "story", "markdown", "passage",
          "page", "sentence", "abstract", "transcript", "description", "review", "lyrics", "contents")  # fmt: skip
_IMAGES = ("image", "img", "picture", "photo", "images", "pixel_values", "file_name", "image_path", "path")
_RECORDINGS = ("audio", "speech", "recording", "wav", "file_name", "file", "path")


def class_uses(table: Table, role: str) -> tuple[list[Use], list[str]]:
    """(uses, notes) of `role` (text or image) and label. Raises: Unclear."""
    label = named_use(table, "label") or _label(table)
    thing = named_use(table, role)
    if thing is None:
        thing = _media(table, Kind.IMAGE) if role == "image" else _classified(table, label)
    return [thing, label], []


def speech_uses(table: Table) -> tuple[list[Use], list[str]]:
    """(uses, notes) of audio and text. Raises: Unclear."""
    heard = named_use(table, "audio") or _media(table, Kind.AUDIO)
    if (said := named_use(table, "text")) is not None:
        return [heard, said], []
    candidates = [column for rank, column in table.ranked(SPOKEN) if column.is_text and column.filled >= FEWEST]
    exact = [column for column in candidates if (rank_of(column.path, SPOKEN) or (9, 0))[0] == 0] or candidates
    if not exact:
        exact = [column for column in table.columns if column.is_text and column.words >= 2 and column.coded < FEWEST]
        if len(exact) != 1:
            raise _untold(table, "text", [column.path for column in exact])
    exact = [one for one in exact if not one.is_constant] or exact
    rivals = [one for one in exact[1:] if _differ(table, exact[0], one)]
    if rivals and (rank_of(rivals[0].path, SPOKEN) or (9,))[0] == 0:
        raise Unclear(
            f"{' and '.join(one.path for one in (exact[0], *rivals))} write the same recordings in different ways: "
            "which one is to be learned?", [f"data_text_column: {one.path}" for one in (exact[0], *rivals)],
        )  # fmt: skip
    others = [one.path for one in exact[1:]]
    notes = [f"{', '.join(others)} could be the text, too, and is left out."] if others else []
    return [heard, Use("text", exact[0].path, exact[0].evidence())], notes


def _differ(table: Table, one: Column, other: Column) -> bool:
    """Whether two columns say different things of most rows."""
    both = [
        (str(row[one.path]), str(row[other.path])) for row in table.rows if row.get(one.path) and row.get(other.path)
    ]
    return sum(mine != yours for mine, yours in both) > FEWEST * max(1, len(both))


def text_uses(table: Table) -> tuple[list[Use], list[str]]:
    """(uses, notes) of plain text. Raises: Unclear."""
    if (named := named_use(table, "text")) is not None:
        return [named], []
    texts = [column for column in table.columns if column.is_text and column.filled >= FEWEST]
    exact = [column for rank, column in table.ranked(_PLAIN) if rank[0] == 0 and column in texts]
    if not exact:
        exact = [column for column in texts if column.words >= 5]
        if len(exact) != 1:
            raise _untold(table, "text", [column.path for column in exact])
    return [Use("text", exact[0].path, exact[0].evidence())], []


def _untold(table: Table, role: str, candidates: list[str]) -> Unclear:
    return Unclear(
        f"cannot tell which column to use; the columns are {', '.join(table.names)}: name one of them in "
        f"{key_of_role(role)}.", [f"{key_of_role(role)}: {one}" for one in candidates[:4]],
    )  # fmt: skip


def _media(table: Table, kind: Kind) -> Use:
    role, names = ("image", _IMAGES) if kind is Kind.IMAGE else ("audio", _RECORDINGS)
    found = [column for column in table.columns if column.kind is kind]
    ranked = [column for rank, column in table.ranked(names) if rank[0] == 0]
    away = [column.path for column in found if are_names(table, column)]
    found = [column for column in found if column.path not in away]
    if away and not found:
        raise Unclear(f"{away[0]} names files that are not beside the rows. Name data that hold {kind}.")
    named = [column for column in ranked if column in found]
    if not found or (len(found) > 1 and not named):
        raise _untold(table, role, [column.path for column in found])
    best = (named or found)[0]
    return Use(role, best.path, best.evidence())


def are_names(table: Table, column: Column) -> bool:
    """Whether a column holds nothing but names of files; those that lie beside the rows have been read before."""
    values = [value for row in table.rows if not is_absent(value := row.get(column.path))]
    return bool(values) and all(is_media_name(value) for value in values)


# --- Classes ----------------------------------------------------------------------------------------------------------


def _label(table: Table) -> Use:
    """The column with the class. Raises: Unclear."""
    stored = [column for column in table.columns if column.kind is Kind.CLASS and column.filled >= FEWEST]
    named = [column for rank, column in table.ranked(LABELS) if rank[0] == 0 and column.filled >= FEWEST]
    named += [column for column in table.columns if _is_named_class(column) and column.filled >= FEWEST]
    for column in named:
        _refuse_several(table, column)
    if not stored:
        tiers = [column for rank, column in table.ranked(LABELS) if rank[0] <= 1 and column.filled >= FEWEST]
        stored = [column for column in named if _is_class(column)] or [column for column in tiers if _is_class(column)]
        stored = [one for one in stored if not any(one.path.endswith(end) for end in _NAMED_LIKE)] or stored
    if not stored:
        marks = [
            column for column in table.columns if _is_mark(column) and words_of(column.path)[:1] in (["is"], ["has"])
        ]
        stored = marks if len(marks) == 1 and marks[0].filled >= FEWEST else []
    if not stored:
        raise _untold(table, "label", [column.path for column in table.columns if _is_class(column)])
    exact = [column for column in stored if column.path.lower() in ("label", "labels", "class")]
    if len(stored) > 1 and len(exact) != 1 and not _same_class(table, stored):
        raise Unclear(
            f"{' and '.join(column.path for column in stored)} are classes: which of them is to be told?",
            [f"data_label_column: {column.path}" for column in stored],
        )
    best = (exact or stored)[0]
    if best.kind is Kind.NUMBER or _is_measured(table, best):
        raise Unclear(
            f"{best.path} holds numbers ({best.evidence()}), not classes. Write them as names, `low` and `high` for "
            "example, into a column of their own.", [],
        )  # fmt: skip
    marks = [one for one in table.columns if one is not best and _is_mark(one) and not is_about(one.path)]
    if _is_mark(best) and best not in exact and marks:
        raise Unclear(
            f"{best.path} and {', '.join(one.path for one in marks)} each say yes or no of a row, and a classifier "
            "here tells one class: which?", [f"data_label_column: {one.path}" for one in (best, *marks)],
        )  # fmt: skip
    return Use("label", best.path, best.evidence())


def _is_measured(table: Table, column: Column) -> bool:
    """Whole numbers that measure something: spread wide, and hardly one twice."""
    if column.kind is not Kind.WHOLE or column.rows < 4 or column.unlike < USUAL:
        return False
    numbers = [number for row in table.rows if (number := number_of(row.get(column.path))) is not None]
    return bool(numbers) and max(numbers) - min(numbers) > 2 * len(numbers)


def _is_mark(column: Column) -> bool:
    return column.kind is Kind.TRUTH or (column.kind is Kind.WHOLE and set(column.values) in ({"0", "1"}, {"0"}))


def _is_named_class(column: Column) -> bool:
    """`label_name`: classes by their names."""
    stem = next((column.path[: -len(end)] for end in _NAMED_LIKE if column.path.endswith(end)), "")
    return bool(stem) and (rank_of(stem, LABELS) or (9, 0))[0] == 0 and _is_class(column)


def _is_class(column: Column) -> bool:
    if column.kind in (Kind.CLASS, Kind.TRUTH):
        return True
    if column.kind not in (Kind.WHOLE, Kind.TEXT, Kind.NUMBER) or column.distinct > _MOST_CLASSES:
        return False
    named = (rank_of(column.path, LABELS) or (9, 0))[0] == 0
    if column.kind is Kind.TEXT and (column.words > 6 or (column.is_identifier and not named)):
        return False  # `track_order` names a row elsewhere, and a class where the column is called `intent`
    if column.kind is Kind.TEXT and column.words >= 2 and column.unlike >= USUAL and column.rows > 2:
        return False  # sentences, each of its own
    if column.kind is Kind.NUMBER:
        return rank_of(column.path, LABELS) is not None
    return column.distinct * 2 <= column.rows or column.rows < 10 or column.unlike < FEWEST


def _refuse_several(table: Table, column: Column) -> None:
    if column.kind in (Kind.NUMBERS, Kind.ALTERNATING):
        tokens = [one.path for one in table.columns if one.kind is Kind.ALTERNATING and one.length == column.length]
        what = "one for each word" if tokens and column.length > 1 else "several classes of each row"
        raise Unclear(
            f"{column.path} holds {what} ({column.evidence()}), and a classifier here tells one class of each row. "
            "Write the one that counts into a column of its own."
        )


def _same_class(table: Table, columns: list[Column]) -> bool:
    """Whether columns say the same in other words: `label` and `label_text`."""
    first = columns[0]
    for other in columns[1:]:
        pairs = {(str(row.get(first.path)), str(row.get(other.path))) for row in table.rows}
        if (
            len(first.names) != len(other.names)
            or len(pairs) == len(table.rows)
            or len(pairs) != len({one for one, _ in pairs})
            or len(pairs) != len({two for _, two in pairs})
        ):
            return False
    return True


# --- Texts ------------------------------------------------------------------------------------------------------------


def _classified(table: Table, label: Use) -> Use:
    """What is classified: one text, or two that are judged together. Raises: Unclear."""
    texts = [
        column for column in table.columns
        if (column.is_text or (column.kind is Kind.ALTERNATING and column.words >= 2)) and column.filled >= FEWEST
        and column.path != label.expression and not column.path.startswith(f"{label.expression}_")
        and not column.is_identifier
    ]  # fmt: skip
    by_name = {"".join(words_of(column.path)): column for column in texts}
    for one, other in ((one.replace("_", ""), other.replace("_", "")) for one, other in PAIRS):
        if one in by_name and other in by_name:
            first, second = by_name[one], by_name[other]
            return Use(
                "text", f"{first.path}{'?' if first.filled < 1 else ''} + {second.path}",
                f"{first.path} and {second.path} are judged together; {second.path}: {second.evidence()}",
            )  # fmt: skip
    exact = [column for rank, column in table.ranked(TEXTS) if rank[0] == 0 and column in texts]
    exact = [one for one in exact if one.path.lower() in ("text", "sentence", "content")][:1] or exact
    rest = exact or [column for column in texts if column.words >= 3 and column.coded < USUAL]
    if not rest and len(texts) == 1:
        rest = texts
    if len(rest) != 1:
        raise _untold(table, "text", [column.path for column in rest])
    return Use("text", rest[0].path, rest[0].evidence())
