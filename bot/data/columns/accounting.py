"""Every column accounted for: used, known to be something else, or a question to the person.

A column of texts that no part of a row is made from is known where its name says what it is (an id, a source, a score,
reasoning ...), where it sorts the rows, or where it says again what is used: a template filled in, a part of the
question, the same in other forms. Anything else may be half of the question, or a better answer, and is asked about.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .classes import are_names
from .expressions import at_path, value_of
from .facts import USUAL, Column, Kind
from .mapping import FEWEST, ROLES, Table, Unclear, Use, key_of_role
from .names import ANSWERS, ASIDE, CONTEXTS, FORMS, PROMPTS, READ, REJECTED, SIDES, is_about, rank_of, without, words_of
from .turns import as_turns

NEW = 0.35
"""Share of a column's words that may be new to a row; from there on it says something of its own."""
_READ = 4_000
"""Characters of a text that are compared."""
_WORDS = 4
"""Words from which on a text says something."""
_LABELLED = 12
"""Words up to which a text can be the name, the source or the kind of something."""
_TITLES = frozenset({"title", "titles", "headline", "subject", "name"})
_PARTS = frozenset({"aspect", "aspects", "term", "target", "entity", "hypothesis", "claim", "question", "query",
                    "mention", "keyword", "phrase", "span"})  # fmt: skip
_TASKS = ("task", "definition", "instruction", "instructions", "task_description", "command", "request")
_DRAWN = frozenset({"mask", "masks", "thumbnail", "depth", "annotation", "segmentation", "overlay", "heatmap"})
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|\w+")


def refuse_unexplained(table: Table, method: str, uses: Sequence[Use]) -> None:
    """Raises: Unclear where columns hold texts that nothing is made from and nothing explains, unless the recipe names
    what is asked."""
    main = ROLES[method][0]
    first = next((use for use in uses if use.role in (main, "messages")), uses[0])
    if first.role in table.named or main in table.named:
        return
    read = table.read(*uses)
    answers = [use.expression for use in uses if use.role in ("completion", "messages", "chosen")]
    decided = any(role in table.named for role in ROLES[method][1:])
    worse = [name for name in table.names if rank_of(name, REJECTED) is not None or set(words_of(name)) & {*REJECTED}]
    said = [*(use.expression for use in uses), *read, *worse]
    used = [_tokens([value_of(one, row) for one in said]) for row in table.rows]
    longest = max((column.characters for path in read if (column := table.at(path)) is not None), default=0)
    found = [
        one for column in table.columns for one in _unread(column, read)
        if _is_substantial(one, read) and (not decided or _asks(one)) and not _is_known(one, method, read, longest)
        and _new(table, one, used, answers) > NEW and not _names_the_class(table, one, uses)
    ]  # fmt: skip
    found += [one for one in table.columns if one not in found and not decided
              and _is_short_part(table, one, method, uses, read) and _new(table, one, used, answers) > NEW]  # fmt: skip
    if method in ("vision", "speech"):
        found += [one for one in table.columns if one.path not in read and _is_second(table, one, first)]
    if not found:
        _refuse_contradicted(table, first, uses, read)
        return
    told = "; ".join(f"{one.path}: {one.evidence()}" for one in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise Unclear(
        f"Nothing is made of what could belong to a row ({told}{more}): is that right?", _lines(first, found, uses),
    )  # fmt: skip


def _is_short_part(table: Table, column: Column, method: str, uses: Sequence[Use], read: Sequence[str]) -> bool:
    """Words by which the same text has another class, or a task of several, however short and few they are."""
    if column.kind is not Kind.TEXT or column.path in read or column.filled < FEWEST or column.distinct == 1:
        return False
    words = words_of(column.path)
    if method == "classify":
        return bool(set(words[-1:]) & _PARTS) and not any(_mirrors(table, column, use.expression) for use in uses)
    return method in ("sft", "distill", "grpo") and column.words >= 3 and "_".join(words) in _TASKS


def _names_the_class(table: Table, column: Column, uses: Sequence[Use]) -> bool:
    label = next((use for use in uses if use.role == "label"), None)
    return label is not None and column.kind is Kind.TEXT and _mirrors(table, column, label.expression)


def _mirrors(table: Table, column: Column, expression: str) -> bool:
    """Whether each value of the column goes with one value of what is used: the name of its class, say."""
    pairs = {(str(row.get(column.path)), str(value_of(expression, row))) for row in table.rows}
    return len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) < max(3, len(table.rows))


def _is_second(table: Table, column: Column, first: Use) -> bool:
    """Another image or recording of the same row, which is none of what is drawn onto the first."""
    main = table.at(first.expression)
    alike = main is not None and column.kind is main.kind and bool(column.rows)
    return alike and not are_names(table, column) and not set(words_of(column.path)) & _DRAWN


def _refuse_contradicted(table: Table, first: Use, uses: Sequence[Use], read: Sequence[str]) -> None:
    """Raises: Unclear where rows that ask the same are answered differently, and a column that is not used tells them
    apart: a language, a style, an aspect."""
    last = next((use for use in uses if use.role in ("completion", "label")), None)
    if last is None:
        return
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for row in table.rows:
        asked, said = (str(value_of(use.expression, row)) for use in (first, last))
        groups.setdefault(asked, []).append((said, row))
    apart = [one for one in groups.values() if len({said for said, _ in one}) > 1]
    if sum(map(len, apart)) < max(4, 0.1 * len(table.rows)):
        return
    for column in table.columns:
        if column.kind not in (Kind.TEXT, Kind.CLASS) or column.path in read or column.is_identifier:
            continue
        if all(len({str(row.get(column.path)) for _, row in one}) == len(one) for one in apart):
            key = key_of_role(first.role)
            raise Unclear(
                f"Rows with the same {first.expression} have different {last.expression}, and {column.path} tells them "
                "apart: does it belong to what is asked?",
                [f"{key}: {column.path} + {first.expression}", f"{key}: {first.expression}"],
            )


def _lines(first: Use, found: Sequence[Column], uses: Sequence[Use]) -> list[str]:
    """As it is; with what was found before the question, or as the system message; with one of them as the answer."""
    key = key_of_role(first.role)
    plain = f"{key}: {first.expression}"
    answers = [one for one in found if (rank_of(one.path, ANSWERS) or (9,))[0] <= 1]
    before = [one for one in found if one not in answers and one.kind in (Kind.TEXT, Kind.ALTERNATING)][:3]
    lines = [plain]
    if first.role in ("prompt", "text") and not first.expression.startswith(("turns(", "shared(")):
        lines += [f"{key}: {one.path} + {first.expression}" for one in before]
    if first.role == "messages" and not any(use.role == "system" for use in uses):
        lines += [f"{plain} and data_system_column: {one.path}" for one in before if one.is_text]
    if any(use.role == "completion" for use in uses):
        lines += [
            f"{plain} and data_completion_column: {one.path}{'[0]' if one.kind is Kind.ALTERNATING else ''}"
            for one in answers[:2] if one.kind is not Kind.TURNS
        ]  # fmt: skip
    return lines


def _unread(column: Column, read: Sequence[str]) -> Iterator[Column]:
    """The column, or its fields, without what is read."""
    if column.path in read:
        return
    inside = any(path.startswith((f"{column.path}.", f"{column.path}[")) for path in read)
    if column.fields and (inside or column.kind in (Kind.OBJECT, Kind.RECORDS)):
        for one in column.fields:
            yield from _unread(one, read)
    elif not inside:
        yield column


def _is_substantial(column: Column, read: Sequence[str]) -> bool:
    """Texts of several words, lists of them, conversations, and what stands beside a used column under its name."""
    if column.kind is Kind.EMPTY or column.is_identifier:
        return False
    if column.kind in (Kind.TURNS, Kind.MARKED):
        return True
    if column.kind is Kind.OTHER:
        return True  # as far as it holds words
    if column.kind not in (Kind.TEXT, Kind.ALTERNATING):
        return False
    if _stands_beside(column.path, read):
        return True
    if column.kind is Kind.TEXT and column.values and column.distinct * 2 <= column.rows:
        return False  # classes
    plays = any((rank_of(column.path, names) or (9,))[0] <= 1 for names in (PROMPTS, CONTEXTS, ANSWERS))
    return column.words >= (2 if plays else 3 if column.kind is Kind.ALTERNATING else _WORDS) or _is_unspaced(column)


def _asks(column: Column) -> bool:
    """Whether its name is one of a question or of what is read for it: somebody who named the answer has seen the other
    answers."""
    return any((rank_of(column.path, names) or (9,))[0] <= 1 for names in (PROMPTS, CONTEXTS, READ))


def _is_unspaced(column: Column) -> bool:
    """Long, and without blanks that part words; nor an address or a code."""
    return column.words < _WORDS and column.characters >= 12 and column.coded < USUAL


def _stands_beside(path: str, read: Sequence[str]) -> bool:
    """`answer_b` where `answer_a` is read."""
    for sides in SIDES:
        for one, other in (sides, sides[::-1]):
            stem = without(path, one)
            if stem is not None and any(stem) and any(without(each, other) == stem for each in read):
                return True
    return False


def _is_form(path: str, read: Sequence[str]) -> bool:
    """`original_question` where `question` or `query` is read: the same in another form, or from an earlier stage."""
    words = words_of(path)
    rest = [word for word in words if word not in FORMS]
    if rest == words or not rest:
        return False
    roles = [names for names in (PROMPTS, ANSWERS) if "_".join(rest) in names]
    return any([word for word in words_of(one) if word not in FORMS] == rest or
               any((rank_of(one, names) or (9,))[0] == 0 for names in roles) for one in read)  # fmt: skip


def _is_known(column: Column, method: str, read: Sequence[str], longest: int) -> bool:
    """Whether the name says what it is."""
    words = {word for part in column.path.split(".") for word in words_of(part)}
    if words & ASIDE:
        return True
    if _is_form(column.path, read):
        return True
    most = _WORDS if (rank_of(column.path, READ) or (9,))[0] == 0 else _LABELLED  # `source` can be what is translated
    if is_about(column.path) and column.kind is not Kind.TURNS and column.words < most:
        return True
    if words & _TITLES and column.characters * 4 <= longest:
        return True
    if method == "grpo" and (rank_of(column.path, ANSWERS) or (9,))[0] <= 1 and not _stands_beside(column.path, read):
        return True  # an answer beside the one that is compared with
    if method == "speech":
        return (rank_of(column.path, ("text", "transcription", "transcript")) or (9,))[0] > 0
    return method == "pretrain" and column.characters < longest


def _new(table: Table, column: Column, used: Sequence[Counter[str]], said: Sequence[str]) -> float:
    """Median share of the column's words that stand neither in what is used of a row nor, as in a template, in most
    rows."""
    if column.kind is Kind.ALTERNATING:
        return 0.0 if _holds_the_answer(table, column, said) else _new_elements(table, column, used)
    rows = [(_tokens([at_path(column.path, row)]), has) for row, has in zip(table.rows, used, strict=True)]
    left = [(said, said - has) for said, has in rows if said]
    spread = Counter(word for _, new in left for word in new)
    common = {word for word, count in spread.items() if count > len(left) * 0.6}
    shares = [
        sum(count for word, count in new.items() if word not in common) / said.total() for said, new in left
    ]  # fmt: skip
    return statistics.median(shares) if shares else 0.0


def _holds_the_answer(table: Table, column: Column, said: Sequence[str]) -> bool:
    """Whether one text of the list is the answer that is used: the others are those it was chosen from."""
    rows = [(at_path(column.path, row), [_answer_of(value_of(one, row)) for one in said]) for row in table.rows]
    told = [any(isinstance(one, str) and one.strip() in used for one in several) for several, used in rows
            if isinstance(several, list) and several and any(used)]  # fmt: skip
    return bool(told) and sum(told) >= USUAL * len(told)


def _answer_of(value: Any) -> str:
    turns = as_turns(value) if isinstance(value, list) else None
    return (turns[-1]["content"] if turns else str(value or "")).strip()


def _new_elements(table: Table, column: Column, used: Sequence[Counter[str]]) -> float:
    """Share of a list's texts of which a word is nowhere in what is used of their row."""
    texts = [(_tokens([text]), has) for row, has in zip(table.rows, used, strict=True)
             for text in _texts([at_path(column.path, row)], 3)]  # fmt: skip
    return sum(bool(said - has) for said, has in texts) / len(texts) if texts else 0.0


def _tokens(values: Iterable[Any]) -> Counter[str]:
    return Counter(word for text in _texts(values, 4) for word in _TOKEN.findall(text[:_READ].lower()))


def _texts(values: Iterable[Any], depth: int) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int | float):
            yield f"{value:g}" if isinstance(value, float) else str(value)[:40]
        elif depth and isinstance(value, Mapping):
            yield from _texts(value.values(), depth - 1)
        elif depth and isinstance(value, list | tuple):
            yield from _texts(value, depth - 1)
