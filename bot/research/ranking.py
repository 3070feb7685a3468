"""Which of the data sets that were found serve a goal, each with its reasons in sentences and numbers.

What other rooms know travels here as functions: which data sets are benchmarks, which licences allow training, how
columns map to a method.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bot.research.datasets import Dataset, Seen, look, search
from bot.research.viewer import Rows
from bot.research.web import Web


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a goal needs data for."""

    method: str = "sft"
    words: str = ""
    """Of its subject."""
    language: str = ""
    """ISO 639-1."""
    task: str = ""
    least_rows: int = 200
    most_rows: int = 5_000_000
    columns: tuple[str, ...] = ()
    """That have to be there."""


@dataclass(frozen=True, slots=True)
class Reason:
    points: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Ranked:
    seen: Seen
    reasons: tuple[Reason, ...]
    refused: str = ""
    """Why it may not be trained on at all; empty where nothing is known against it."""

    @property
    def dataset(self) -> Dataset:
        return self.seen.dataset

    @property
    def score(self) -> float:
        return sum(reason.points for reason in self.reasons)


Refusal = Callable[[str], str | None]
"""Data set's id -> why it may not be trained on: it is a benchmark, say."""
LicenceGate = Callable[[str], tuple[bool, str]]
"""A licence's identifier -> (whether it allows the training, one sentence)."""
Mapper = Callable[[str, Rows], tuple[bool | None, str]]
"""(method, rows) -> (whether its columns serve the method, None when unsure; one sentence)."""


def rank(
    found: Sequence[Seen], wanted: Wanted, *, now: float, refuses: Refusal, licence: LicenceGate,
    mapper: Mapper | None = None,
) -> list[Ranked]:  # fmt: skip
    """The best first, those that may not be used last, each with its reasons. Equal scores go by name."""
    ranked = [_ranked(seen, wanted, now, refuses, licence, mapper or fits_columns) for seen in found]
    return sorted(ranked, key=lambda each: (bool(each.refused), -each.score, each.dataset.id))


def _ranked(seen: Seen, wanted: Wanted, now: float, refuses: Refusal, licence: LicenceGate, mapper: Mapper) -> Ranked:
    dataset = seen.dataset
    reasons, refused = _licence_reasons(dataset, licence)
    refused = refuses(dataset.id) or refused
    if dataset.gated:
        reasons.append(Reason(-1.5, "It is gated: somebody has to accept its terms on its page first."))
    reasons += _column_reasons(seen, wanted, mapper)
    reasons += _row_reasons(seen, wanted)
    reasons += _subject_reasons(dataset, wanted)
    reasons += _use_reasons(dataset, now)
    return Ranked(seen, tuple(sorted(reasons, key=lambda each: -abs(each.points))), refused)


def _licence_reasons(dataset: Dataset, gate: LicenceGate) -> tuple[list[Reason], str]:
    if not dataset.licences:
        return [Reason(-2.0, "Its card states no licence.")], ""
    judged = [(name, *gate(name)) for name in dataset.licences]
    refused = next((sentence for _, ok, sentence in judged if not ok), "")
    points = -4.0 if refused else 3.0
    return [Reason(points, sentence) for _, _, sentence in judged[:1]], refused


def _column_reasons(seen: Seen, wanted: Wanted, mapper: Mapper) -> list[Reason]:
    if seen.rows is None:
        return [Reason(-1.0, f"Its columns are not known: {seen.problem or 'the viewer shows none.'}")]
    missing = [column for column in wanted.columns if column not in seen.rows.features]
    if missing:
        return [Reason(-4.0, f"It lacks the column `{missing[0]}`; it has {_listed(seen.rows.columns)}.")]
    fits, sentence = mapper(wanted.method, seen.rows)
    return [Reason({True: 4.0, None: 0.0, False: -4.0}[fits], sentence)]


def _row_reasons(seen: Seen, wanted: Wanted) -> list[Reason]:
    rows = seen.training_rows
    if rows is None:
        return []
    if rows < wanted.least_rows:
        return [Reason(-2.0, f"It has {rows:,} rows, fewer than the {wanted.least_rows:,} that are wanted.")]
    if rows > wanted.most_rows:
        return [Reason(0.0, f"It has {rows:,} rows; more than {wanted.most_rows:,} are not used.")]
    return [Reason(2.0, f"It has {rows:,} rows.")]


def _subject_reasons(dataset: Dataset, wanted: Wanted) -> list[Reason]:
    reasons = []
    if wanted.language and dataset.languages:
        fits = wanted.language in dataset.languages
        said = _listed(dataset.languages)
        reasons.append(
            Reason(1.0 if fits else -2.0, f"Its card names the language{'s' * (said.count(',') > 0)} {said}.")
        )
    if wanted.task and wanted.task in dataset.tasks:
        reasons.append(Reason(1.0, f"Its card names the task {wanted.task}."))
    text = set(re.findall(r"[a-z0-9]+", f"{dataset.id} {dataset.description}".lower()))
    words = set(re.findall(r"[a-z0-9]+", wanted.words.lower()))
    if shared := sorted(words & text):
        reasons.append(Reason(2.0 * len(shared) / len(words), f"Its name or card holds {_listed(shared)}."))
    return reasons


def _use_reasons(dataset: Dataset, now: float) -> list[Reason]:
    """People's use says little, and breaks ties: at most 1.5 points together."""
    points = min(len(str(dataset.downloads)) - 1, 6) / 6
    reasons = [Reason(points, f"It was downloaded {dataset.downloads:,} times in the last 30 days.")]
    if dataset.modified_at is not None:
        years = max(0.0, (now - dataset.modified_at) / (365.25 * 86_400))
        reasons.append(Reason(0.5 if years < 2 else 0.0, f"It was last changed {years:.1f} years ago."))
    return reasons


_FORMS: Mapping[str, tuple[tuple[frozenset[str], ...], ...]] = {
    "sft": (
        (frozenset({"messages", "conversations", "conversation"}),),
        (frozenset({"prompt", "instruction", "question", "query", "input"}),
         frozenset({"completion", "response", "output", "answer", "solution"})),
        (frozenset({"text"}),),
    ),
    "dpo": ((frozenset({"chosen"}), frozenset({"rejected"})),),
    "reward": ((frozenset({"chosen"}), frozenset({"rejected"})),),
    "grpo": (
        (frozenset({"prompt", "question", "problem", "query", "instruction"}),
         frozenset({"completion", "answer", "solution", "reference", "ground_truth", "final_answer"})),
    ),
    "pretrain": ((frozenset({"text", "content"}),),),
    "classify": ((frozenset({"text", "sentence", "content", "review"}), frozenset({"label", "labels", "class"})),),
    "vision": ((frozenset({"image", "img"}), frozenset({"label", "labels", "fine_label"})),),
    "speech": ((frozenset({"audio"}), frozenset({"text", "sentence", "transcription", "transcript"})),),
}  # fmt: skip
_LIKE = {"rft": "grpo", "distill": "sft", "synthetic": "grpo", "kto": "sft"}


def fits_columns(method: str, rows: Rows) -> tuple[bool | None, str]:
    """By the columns' names alone; how they are mapped is decided on the rows themselves, and shown."""
    columns = {column.lower(): column for column in rows.features}
    forms = _FORMS.get(_LIKE.get(method, method))
    shown = _listed(rows.columns)
    if forms is None:
        return None, f"It has the columns {shown}."
    for form in forms:
        taken = [next((columns[name] for name in columns if name in names), None) for names in form]
        if all(taken):
            return True, f"Its columns {_listed([str(name) for name in taken])} serve {method}."
    return False, f"Its columns {shown} are none that {method} is known to take."


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"`{name[:40]}`" for name in names[:5]) + rest


async def find(
    web: Web, wanted: Wanted, *, now: float, refuses: Refusal, licence: LicenceGate, mapper: Mapper | None = None,
    most_looked_at: int = 5, limit: int = 30,
) -> list[Ranked]:  # fmt: skip
    """Search, look into the likeliest, rank. Raises: as `search`; what a single data set lacks is its reason."""
    found = await search(web, wanted.words, task=wanted.task, language=wanted.language, limit=limit)
    first = rank([Seen(each) for each in found], wanted, now=now, refuses=refuses, licence=licence, mapper=mapper)
    likely = [each.dataset for each in first if not each.refused][:most_looked_at]
    seen = [await look(web, dataset) for dataset in likely]
    refused = [each.seen for each in first if each.refused]
    return rank([*seen, *refused], wanted, now=now, refuses=refuses, licence=licence, mapper=mapper)
