"""Judges what a reader of papers makes of test papers: precision, recall, and which values are wrong.

**The papers.** `corpus/` holds those that a reader is made with; `unseen/`, `fresh/`, `later/` and `latest/` those
written after it, by people who had not seen it. Each of their folders holds one invented paper and `expected.yaml`:

- `id` (an arXiv-shaped one that cannot exist), `title`, `format` (`arxiv_html`, `ar5iv_html`, `latex`, `pdf`) and
  `file`, relative to the folder. For `latex` the whole of `source/` is the paper; `latex_archive` packs it as arXiv
  does.
- `stages`: the paper's own training stages, `{name, also}`; `models`: the models it trains, `{name, also}`. `also`
  lists other words for the same.
- `hyperparameters`: `{stage, model?, key, value, also?, quote}`, what a careful reader takes for the paper's own
  final setting. `key` is TRL's or transformers' argument; `global_batch_size` counts sequences (pairs, recordings) in
  an update. An entry without `model` holds for every model of the paper. `quote` gives the words of the sentence or
  of the table's row, with numbers set as mathematics left out.
- `ambiguous`: `{key, stage?, model?, values?, why}`, where an answer is neither right nor wrong.
- `traps`: `{key, value, stage?, why}`, values that stand in the paper and are not its setting.
- `datasets`: `{name, use, size?}`; `results`: `{model, benchmark, metric, value}`.

**An answer** is `{stage, model, key, value, quote}`; `stage` and `model` may be None.

**Scoring.** Only keys in `KEYS` are judged. An answer is right if an expected entry has its key and value, and its
stage and model fit; ambiguous answers are left out of the count; everything else is wrong, an answer without a quote
included. A stage or model that is None fits where the paper leaves no choice: one stage, or the same value
everywhere. The same answer given twice counts once. Numbers compare with a relative tolerance of 1e-9; names of
schedules and optimisers by family (`adamw_torch` is `adamw`, `adamw_8bit` is not). Not covered: whether the quote is
the paper's (the caller has its text).
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CORPUS = Path(__file__).parent / "corpus"
UNSEEN = Path(__file__).parent / "unseen"
FRESH = Path(__file__).parent / "fresh"
LATER = Path(__file__).parent / "later"
LATEST = Path(__file__).parent / "latest"

KEYS = frozenset(
    (
        "learning_rate",
        "min_lr",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "global_batch_size",
        "num_train_epochs",
        "max_steps",
        "warmup_ratio",
        "warmup_steps",
        "lr_scheduler_type",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "max_length",
        "max_prompt_length",
        "max_completion_length",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "beta",
        "epsilon",
        "epsilon_high",
        "num_generations",
        "num_iterations",
        "temperature",
        "top_p",
        "top_k",
        "optim",
        "bf16",
        "fp16",
        "label_smoothing_factor",
        "gradient_checkpointing",
        "packing",
        "seed",
        "gamma",
        "lam",
        "num_ppo_epochs",
        "total_episodes",
    )
)

SAME_KEY = {
    "max_seq_length": "max_length",
    "max_new_tokens": "max_completion_length",
    "response_length": "max_completion_length",
    "label_smoothing": "label_smoothing_factor",
    "total_batch_size": "global_batch_size",
    "effective_batch_size": "global_batch_size",
    "r": "lora_r",
    "kl_coef": "beta",
    "cliprange": "epsilon",
}

SAME_WORD = {
    "adamw_torch": "adamw",
    "adamw_hf": "adamw",
    "adamw_torch_fused": "adamw",
    "cosine_decay": "cosine",
    "linear_decay": "linear",
    "inverse_square_root": "inverse_sqrt",
}


# Our methods by the words of README's table of methods.
SAME_STAGE = {
    "speech": "speech recognition", "vision": "image classification", "classify": "classification",
    "pretrain": "pretraining",
}  # fmt: skip
_OWNED = re.compile(r"[\w.-]+/[a-z][\w.-]+$")  # a name on the Hub, owner/name, and not ViT-B/16
_TELL_NOTHING = frozenset(("the", "our", "ours", "model", "stage", "phase"))


class Interval(NamedTuple):
    """Both ends of a 95 % Wilson score interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Wrong:
    """One answer that the paper doesn't bear out."""

    paper: str
    answer: Mapping[str, Any]
    why: str


@dataclass(frozen=True, slots=True)
class Score:
    """What was counted, over all papers judged."""

    right: int
    wrong: tuple[Wrong, ...]
    found: int
    # Expected entries that some right answer covers.
    expected: int
    ambiguous: int
    unjudged: int
    # Answers whose key is not in KEYS.
    missed: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def answered(self) -> int:
        return self.right + len(self.wrong)

    @property
    def precision(self) -> float:
        """Right answers out of those judged; 0 when nothing was answered, so that silence cannot pass."""
        return self.right / self.answered if self.answered else 0.0

    @property
    def precision_interval(self) -> Interval:
        return wilson(self.right, self.answered)

    @property
    def recall(self) -> float:
        return self.found / self.expected if self.expected else 0.0

    def lines(self) -> list[str]:
        """The score in words, one line each, the wrong answers named."""
        low, high = self.precision_interval
        told = [
            f"precision {self.precision:.4f} (95 % {low:.4f} to {high:.4f}): {self.right} right of {self.answered}",
            f"recall {self.recall:.4f}: {self.found} of {self.expected}",
            f"ambiguous {self.ambiguous}, keys not judged {self.unjudged}",
        ]
        return told + [
            f"wrong: {one.paper}: {one.answer.get('stage')}/{one.answer.get('model')} "
            f"{one.answer.get('key')} = {one.answer.get('value')!r}: {one.why}"
            for one in self.wrong
        ]


@cache
def papers(held: Path = CORPUS) -> dict[str, dict[str, Any]]:
    """The `expected.yaml` of each paper in `held`, by its folder's name."""
    return {
        file.parent.name: yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in sorted(held.glob("*/expected.yaml"))
    }


def latex_archive(folder: Path) -> bytes:
    """A paper's LaTeX source as arXiv's e-print download: a gzipped tar, with the same bytes for the same files."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = file.stat().st_size
            archive.addfile(entry, io.BytesIO(file.read_bytes()))
    return held.getvalue()


def wilson(right: int, n: int, z: float = 1.959963984540054) -> Interval:
    """The Wilson score interval of a proportion; (0, 1) for n = 0. https://doi.org/10.1080/01621459.1927.10502953"""
    if n == 0:
        return Interval(0.0, 1.0)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def score(answers: Mapping[str, Iterable[Mapping[str, Any]]], held: Path = CORPUS) -> Score:
    """Judge the answers given for each paper in `held`, by folder name; one that isn't named counts as missed whole.

    Raises:
        KeyError: an answer names a paper that is not in `held`.
    """
    known = papers(held)
    right = found = expected = ambiguous = unjudged = 0
    wrong: list[Wrong] = []
    missed: list[tuple[str, Mapping[str, Any]]] = []
    if unknown := set(answers) - set(known):
        raise KeyError(f"no such paper: {', '.join(sorted(unknown))}")
    for name, paper in known.items():
        judged = [(answer, _judge(paper, answer)) for answer in _distinct(answers.get(name, ()))]
        covered = {index for _, (_, indexes) in judged for index in indexes}
        right += sum(verdict == "right" for _, (verdict, _) in judged)
        ambiguous += sum(verdict == "ambiguous" for _, (verdict, _) in judged)
        unjudged += sum(verdict == "unjudged" for _, (verdict, _) in judged)
        kinds = {"right", "ambiguous", "unjudged"}
        wrong += [Wrong(name, answer, verdict) for answer, (verdict, _) in judged if verdict not in kinds]
        expected += len(paper["hyperparameters"])
        found += len(covered)
        missed += [(name, entry) for index, entry in enumerate(paper["hyperparameters"]) if index not in covered]
    return Score(right, tuple(wrong), found, expected, ambiguous, unjudged, tuple(missed))


def canonical(key: str, value: Any) -> tuple[str, Any]:
    """Key and value as they are compared; a `warmup_steps` under one is a share of the steps (transformers 5)."""
    key = SAME_KEY.get(key, key)
    value = _value(value)
    if key == "warmup_steps" and isinstance(value, float) and 0 < value < 1:
        key = "warmup_ratio"
    return key, value


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same setting."""
    one, other = _value(one), _value(other)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=0.0)
    return type(one) is type(other) and bool(one == other)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip().lower().replace("-", "_").replace(" ", "_")
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(str(value))
    except ValueError:
        return SAME_WORD.get(text, text)


def _distinct(answers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    seen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for answer in answers:
        key, value = canonical(str(answer["key"]), answer["value"])
        seen.setdefault((_words(answer.get("stage")), _words(answer.get("model")), key, str(value)), answer)
    return list(seen.values())


def _judge(paper: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """The verdict (`right`, `ambiguous`, `unjudged`, or why it is wrong) and which expected entries it covers."""
    key, value = canonical(str(answer["key"]), answer["value"])
    answer = {**answer, "model": _said_model(paper, answer.get("model"))}
    if key not in KEYS:
        return "unjudged", ()
    of_key = [(i, entry) for i, entry in enumerate(paper["hyperparameters"]) if canonical(entry["key"], 0)[0] == key]
    in_place = [(i, entry) for i, entry in of_key if _fits(paper, entry, answer)]
    equal = [i for i, entry in in_place if any(same_value(value, v) for v in (entry["value"], *entry.get("also", ())))]
    if equal and len(equal) == len(in_place):
        return ("right", tuple(equal)) if str(answer.get("quote") or "").strip() else ("no quote", ())
    if any(_is_ambiguous(paper, entry, answer, key, value) for entry in paper["ambiguous"]):
        return "ambiguous", ()
    return _why_wrong(paper, key, value, [entry for _, entry in of_key]), ()


def _said_model(paper: Mapping[str, Any], said: str | None) -> str | None:
    """The model an answer speaks of; None for "ours" and for a column's head that names a stage."""
    stage = any(_means(paper["stages"], each["name"], said) for each in paper["stages"])
    return None if not _words(said) or stage else said


def _fits(paper: Mapping[str, Any], entry: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Whether an answer speaks of the entry's stage and model; None speaks of all of them."""
    return _is_stage(paper, entry.get("stage"), answer.get("stage")) and (
        (entry.get("model") is None and _is_own(paper["models"], answer.get("model")))
        or (entry.get("model") is not None and _means(paper["models"], entry["model"], answer.get("model")))
    )


def _is_stage(paper: Mapping[str, Any], name: str | None, said: str | None) -> bool:
    return any(_means(paper["stages"], name, word) for word in (said, SAME_STAGE.get(said or "", said)))


def _is_own(models: list[Mapping[str, Any]], said: str | None) -> bool:
    return not said or any(_means(models, model["name"], said) for model in models)


def _means(named: list[Mapping[str, Any]], name: str | None, said: str | None) -> bool:
    if not said or name is None:
        return True
    one = next((entry for entry in named if entry["name"] == name), {"name": name})
    return _words(said) in {_words(word) for word in (one["name"], *one.get("also", ()))}


def _names(named: list[Mapping[str, Any]], name: str, said: str | None) -> bool:
    return bool(said) and _means(named, name, said)


def _words(text: str | None) -> str:
    """A name without its owner, its punctuation and the words that tell nothing apart."""
    name = (text or "").lower()
    if _OWNED.match(name):
        name = name.rsplit("/", 1)[-1]
    return "".join(word for word in re.findall(r"[a-z]+|[0-9.]+", name) if word not in _TELL_NOTHING)


def _is_ambiguous(
    paper: Mapping[str, Any], entry: Mapping[str, Any], answer: Mapping[str, Any], key: str, value: Any
) -> bool:
    return (
        entry["key"] == key
        and _means(paper["stages"], entry.get("stage"), answer.get("stage"))
        and (
            "model" not in entry
            or (bool(answer.get("model")) and _means(paper["models"], entry["model"], answer["model"]))
        )
        and ("values" not in entry or any(same_value(value, v) for v in entry["values"]))
    )


def _why_wrong(paper: Mapping[str, Any], key: str, value: Any, of_key: list[Mapping[str, Any]]) -> str:
    for trap in paper["traps"]:
        if trap["key"] == key and same_value(trap["value"], value):
            return f"a trap: {trap['why']}"
    if any(same_value(entry["value"], value) for entry in of_key):
        return "right number, wrong or undecided stage or model"
    return f"the paper says {', '.join(str(entry['value']) for entry in of_key) or 'nothing of it'}"
