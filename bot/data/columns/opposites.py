"""Two answers of which the names say which is better: `chosen` and `rejected`, say."""

from __future__ import annotations

from .expressions import number_of
from .facts import USUAL, Column, Kind, containing
from .judgements import ANSWER_KINDS, begins_with_question, points
from .mapping import FEWEST, NUMBERS, Table, Unclear, Use, said_by
from .names import ANSWERS, CHOSEN, OPPOSITES, PROMPTS, REJECTED, is_about, rank_of, without, words_of

_BEARING = frozenset({"positive", "negative", "pos", "neg", "positives", "negatives"})
"""So passages are called that bear on a query, or do not."""
_BEGUN = 4
"""Words from which on a text can be the beginning of an answer."""
_SHORT = 24
"""Characters up to which a value can name another column."""


def opposites(table: Table) -> tuple[Use, Use] | None:
    """Two columns whose names differ in `chosen` and `rejected`, or in other words of that meaning. Raises: Unclear."""
    found: list[tuple[int, int, Column, Column]] = []
    texts = [column for column in table.columns if column.kind in ANSWER_KINDS and column.filled >= FEWEST
             and not column.is_constant and not _names_a_column(table, column)]  # fmt: skip
    for at, (good, bad) in enumerate(OPPOSITES):
        for one in texts:
            stem = without(one.path, good)
            other = [each for each in texts if each is not one and stem is not None and without(each.path, bad) == stem]
            for each in other:
                if each.kind is one.kind and stem is not None and not _is_fact(one, stem):
                    found.append((len(stem), at, one, each))
    if not found:
        better = [one for rank, one in table.ranked(CHOSEN) if rank[0] == 0 and one in texts]
        worse = [one for rank, one in table.ranked(REJECTED) if rank[0] == 0 and one in texts]
        return _taken(table, better[0], worse[0]) if len(better) == len(worse) == 1 else None
    found.sort(key=lambda one: one[:2])
    size, at, good_one, bad_one = found[0]
    rivals = [one for one in found[1:] if one[:2] == (size, at)]
    if rivals:
        pairs = [(good_one, bad_one), *((one[2], one[3]) for one in rivals)]
        raise Unclear(
            "There are several pairs of a better and a worse answer.",
            [f"data_chosen_column: {one.path} and data_rejected_column: {other.path}" for one, other in pairs],
        )
    return _taken(table, good_one, bad_one)


def _taken(table: Table, good: Column, bad: Column) -> tuple[Use, Use]:
    """Raises: Unclear where these are passages, lists of several answers, or scores say that they are turned."""
    said = [said_by(one) or one.path if one.kind is Kind.ALTERNATING else one.path for one in (good, bad)]
    lines = [f"data_chosen_column: {said[0]} and data_rejected_column: {said[1]}"]
    words = set(words_of(good.path))
    if words & _BEARING and not words & set(ANSWERS):
        raise Unclear(
            f"{good.path} and {bad.path} can be a better and a worse answer, or passages that bear on a query and that "
            "do not, which nobody should learn to recite.", lines,
        )  # fmt: skip
    if good.kind is Kind.ALTERNATING and not begins_with_question(table, good.path, bad.path):
        if max(good.length, bad.length) > 1:
            raise Unclear(f"{good.path} and {bad.path} hold several texts each ({good.evidence()}): which one?", lines)
        return Use("chosen", said[0], good.evidence()), Use("rejected", said[1], bad.evidence())
    _check_scores(table, good, bad)
    _refuse_continued(table, good, bad)
    return Use("chosen", good.path, good.evidence()), Use("rejected", bad.path, bad.evidence())


def _refuse_continued(table: Table, good: Column, bad: Column) -> None:
    """Raises: Unclear where both answers go on from a column of their beginnings, as another column that holds all of
    it shows: `initial_steps` and `chosen` in `full_chosen`."""
    texts = [one for one in table.columns if one.kind is Kind.TEXT and one not in (good, bad) and one.words >= _BEGUN]
    wholes = [one for one in texts if good.kind is Kind.TEXT and one.characters > good.characters
              and containing(table.rows, one.path, good.path) >= USUAL]  # fmt: skip
    for whole in wholes:
        begins = [one for one in texts if one is not whole and (rank_of(one.path, PROMPTS) or (9,))[0] > 0
                  and containing(table.rows, whole.path, one.path) >= USUAL
                  and containing(table.rows, good.path, one.path) < USUAL]  # fmt: skip
        asked = next((one.path for rank, one in table.ranked(PROMPTS) if rank[0] == 0), None)
        if not begins or asked is None or whole.is_constant:
            continue
        lines = [f"data_chosen_column: {good.path} and data_rejected_column: {bad.path} and data_prompt_column: "
                 f"{asked} + {begins[0].path}"]  # fmt: skip
        other = next((one for one in texts if containing(table.rows, one.path, bad.path) >= USUAL
                      and one is not whole), None)  # fmt: skip
        if other is not None:
            lines.append(f"data_chosen_column: {whole.path} and data_rejected_column: {other.path}")
        raise Unclear(f"{good.path} and {bad.path} go on from {begins[0].path}, as {whole.path} shows: which is it?",
                      lines)  # fmt: skip


def _names_a_column(table: Table, column: Column) -> bool:
    """`response_b` or `B` under `chosen`: what names an answer is none."""
    if column.kind is not Kind.TEXT or column.characters > _SHORT or column.coded < USUAL:
        return False
    values = {str(row.get(column.path)).strip().lower() for row in table.rows} - {"none", ""}
    names = {word for name in table.names if name != column.path for word in (name.lower(), *words_of(name)[-1:])}
    return bool(values) and values <= names


def _is_fact(column: Column, stem: tuple[str, ...]) -> bool:
    """`chosen_model`, `chosen-rating`: about the answer."""
    return is_about("_".join(word for word in stem if word) or "answer") or (
        column.kind is Kind.TEXT and column.coded >= USUAL and bool([word for word in stem if word])
    )


def _check_scores(table: Table, good: Column, bad: Column) -> None:
    """Where the data has scores or ranks of both, they must not say the opposite. Raises: Unclear."""
    for one in table.columns:
        for chosen, rejected in OPPOSITES[:6]:
            stem = without(one.path, chosen)
            sign = points("_".join(stem)) if stem is not None and one.kind in NUMBERS else None
            other = next((each for each in table.columns if without(each.path, rejected) == stem), None)
            if not sign or other is None or stem is None:
                continue
            pairs = [(number_of(row.get(one.path)), number_of(row.get(other.path))) for row in table.rows]
            told = [(mine - yours) * sign for mine, yours in pairs if mine is not None and yours is not None]
            told = [difference for difference in told if difference]
            if told and sum(difference < 0 for difference in told) > 0.5 * len(told):
                what = "lower score" if sign > 0 else "worse rank"
                raise Unclear(
                    f"{good.path} has the {what} in most rows ({one.path} against {other.path}): which answer is "
                    "the better one?",
                    [f"data_chosen_column: {a.path} and data_rejected_column: {b.path}"
                     for a, b in ((good, bad), (bad, good))],
                )  # fmt: skip
