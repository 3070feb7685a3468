"""The dataset card and the experiment's report: what was asked, measured and not measured, as the Hub's Markdown cards.

Front matter is written by a YAML writer and every value in the text is escaped, so that a title or a path can neither
change the card's fields nor mention, link or embed anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CardData, DatasetCardData, EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bot.data.audit import Audit
from bot.data.licences import Licence, licence_gate, normalise_licence
from bot.data.scan import ScanReport
from bot.domain.evaluation import Evaluation
from bot.domain.languages import unlike
from bot.domain.metrics import Counting, metric_named
from bot.domain.statistics import value_interval

_TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "cards"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
# What Markdown or GitHub would act on. A mention and an issue number are broken by an invisible joiner.
_ACTIVE = re.compile(r"([\\`*_\[\]<>|~$!])|^([#+-]|\d+(?=[.)](?:\s|$)))")
_MENTION = re.compile(r"([@#]|GH-)(?=\w)", re.IGNORECASE)
# Counted as printable, drawn as nothing: variation selectors, which can carry bytes, fillers and the Braille blank.
_HIDDEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_ADDRESS = re.compile(r"(?i)(?<![a-z0-9])(https?|ftp|mailto|www)([:.])")
TASK = "text-generation"
_LEAST_LANGUAGE = 0.05
"""Share of the rows from which on a language is one of the data's."""
_SAFE_LINK = re.compile(r"https?://[\w.:/#?=&%+-]+|#\d+")


def dataset_card(
    build: Mapping[str, Any],
    *,
    scan: ScanReport | Mapping[str, Any] | None = None,
    audit: Audit | Mapping[str, Any] | None = None,
    licence: Licence | str | None = None,
    title: str = "Training data",
    private: bool = True,
    examples: Sequence[str] = (),
    languages: Sequence[str] = (),
    asked_in: Mapping[str, float] | None = None,
    task_categories: Sequence[str] = ("text-generation",),
    synthetic: Mapping[str, Any] | None = None,
) -> str:
    """`data/README.md` for what `build` (data/build.json) describes. `examples` are shown only when not `private`.

    `languages` are those that the audit found where none are named, and `asked_in` the shares of languages among the
    benchmark's items. `synthetic` is a run's out/synthetic_card.json: rows that were generated and trained on beside
    the built ones.
    """
    measured_audit = Audit.from_dict(audit) if isinstance(audit, Mapping) else audit
    told = measured_audit.languages if measured_audit is not None else {}
    languages = languages or [code for code, share in told.items() if share >= _LEAST_LANGUAGE]
    found = licence.identifier if isinstance(licence, Licence) else normalise_licence(licence)
    files = [{"split": "train", "path": "train.jsonl"}]
    if build.get("validation_rows"):
        files.append({"split": "validation", "path": "validation.jsonl"})
    front = DatasetCardData(
        pretty_name=_line(title),
        **_licence_fields(found),
        language=list(languages) or None,
        task_categories=list(task_categories),
        size_categories=[size_category(build.get("rows", 0))],
        tags=["postdoc", *(["synthetic"] if synthetic else [])],
        configs=[{"config_name": "default", "data_files": files}],
    )
    return _render(
        "dataset.md.jinja",
        front_matter=_yaml(front),
        languages=told,
        unlike=unlike(told, asked_in or {}),
        title=title,
        build=build,
        scan=scan and _scan_facts(scan),
        audit=measured_audit,
        gate=licence_gate(licence),
        examples=[] if private else list(examples),
        private=private,
        synthetic=synthetic,
    )


def report_card(context: Mapping[str, Any]) -> str:
    """The experiment's README.md, which is its report and the model's card.

    `context` holds (every key but `goal` and `state` may be missing, and is then said to be missing, not left out):

    - `goal`: `Goal.as_dict()`; `title` of it heads the card
    - `state`: how the goal ended or stands ("met", "training" ...); `state_reason`: one sentence
    - `issue`, `pull_request`: addresses or `#12`
    - `baseline`: `Evaluation.as_dict()` of the untouched base model (samples are not needed)
    - `best`: `{"run": 3, "evaluation": Evaluation.as_dict(), "comparison": Comparison.as_dict() against the baseline}`
    - `confirmation`: `{"evaluation", "target", "baseline", "confirmed", "lower_bound", "reason"}` of the sealed split
    - `runs`: list of `{"n", "method", "value", "interval": (low, high), "n_items", "verdict", "symptoms": [..],
      "changed": [{"key", "before", "after"}] or a sentence, "seconds", "usd"}`; `value` None for a run that failed
    - `ablations`: list of `{"n", "key", "rows": [{"value", "score": {"value", "ci_low", "ci_high", "n"} or None,
      "failure"}]}`
    - `model`: `{"path", "visibility", "load"}`: where it lies, who can see it, the one line that loads it
    - `datasets`: Hub ids that it was trained on
    - `published_goal`: id of the goal, on a model's card on the Hub: it says whose repository that is
    - `licences`: list of `{"what", "identifier", "source", "cautions": [..]}`
    - `combination`: `bot.data.combination.Combination.as_dict()`: what the licences ask of the model together
    - `lineage`: `bot.domain.lineage.Lineage.as_dict()` of the best run
    - `languages`: shares of languages in the training data; `asked_in`: among the benchmark's items
    - `energy`: `{"kwh", "hours", "gpus", "gpu", "watts", "source"}`, an estimate
    - `model_licence`: what goes into the card's `license` (the base model's, most often)
    - `contamination`: `ScanReport` or its `as_dict()`
    - `measured`, `not_measured`: sentences; `spend`: `Spend.as_dict()`
    - `reproduce`: the command; `provenance`: mapping of names to values (versions, digests, seeds, machine)
    """
    goal, best = context["goal"], context.get("best")
    baseline, confirmation = context.get("baseline"), context.get("confirmation")
    scan = context.get("contamination")
    links = [(name, str(context[key])) for key, name in _LINKS if context.get(key)]
    return _render(
        "report.md.jinja",
        front_matter=_yaml(_report_front(context)),
        goal=goal,
        raises=metric_named(goal["metric"]).higher_is_better,
        counted=metric_named(goal["metric"]).counting is Counting.RIGHT,
        state=context["state"],
        state_reason=context.get("state_reason", ""),
        budget=_budget_line(goal.get("budget")),
        links=[f"{name}: {target if _SAFE_LINK.fullmatch(target) else plain(target)}" for name, target in links],
        baseline=baseline and evaluation_line(baseline),
        best=best and {**best, "line": evaluation_line(best["evaluation"])},
        comparison=best and best.get("comparison"),
        confirmation=confirmation and {**confirmation, "line": evaluation_line(confirmation["evaluation"])},
        runs=[{**run, "what_changed": _changes(run.get("changed"))} for run in context.get("runs", ())],
        ablations=context.get("ablations", ()),
        model=context.get("model"),
        licences=context.get("licences", ()),
        together=context.get("combination") or {},
        lineage=context.get("lineage"),
        languages=context.get("languages") or {},
        unlike=unlike(context.get("languages") or {}, context.get("asked_in") or {}),
        energy=context.get("energy"),
        scan=scan and _scan_facts(scan),
        measured=context.get("measured", ()),
        not_measured=context.get("not_measured", ()),
        spend=context.get("spend"),
        reproduce=context.get("reproduce"),
        provenance=context.get("provenance", {}),
    )


_LINKS = (("issue", "Issue"), ("pull_request", "Pull request"))


def size_category(rows: int) -> str:
    """The Hub's name for a size."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def evaluation_line(evaluation: Mapping[str, Any]) -> str:
    """`41.5 % (95 % interval 34.9 to 48.4, n = 200, dev)`: no number without its n and interval."""
    values = Evaluation.from_dict({key: value for key, value in evaluation.items() if key != "samples"})
    low, high = value_interval(values)
    span = f"95 % interval {values.measure.bare_interval(low, high)}"
    return f"{values.measure.said(values.value)} ({span}, n = {values.n:,}, {plain(values.split)})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def differing(value: float, metric: str) -> str:
    """A signed difference, in ASCII, with its unit."""
    measure = metric_named(metric)
    return measure.said_difference(value).replace("\u2212", "-") + measure.unit


def margin(bounds: Sequence[float], metric: str) -> str:
    return metric_named(metric).bare_interval(*bounds)


def measured(value: float, metric: str) -> str:
    return metric_named(metric).said(value)


def plain(value: Any) -> str:
    """`value` as Markdown text that shows itself and does nothing else, on one line."""
    text = _ACTIVE.sub(
        lambda match: f"\\{match[0]}" if not match[0][0].isdigit() else f"{match[0]}\u2060",
        _line(value).replace("&", "&amp;"),  # an entity would be read back into what it stands for
    )
    return _ADDRESS.sub("\\1\u2060\\2", _MENTION.sub("\\1\u2060", text))


def code(value: Any) -> str:
    """`value` as inline code, whatever it holds."""
    text = _line(value).replace("`", "'")
    return f"`{text}`" if text else ""


def prose(value: Any) -> str:
    """A sentence of ours that may quote somebody's words in inline code: the code stays, the rest is made `plain`."""
    pieces = _line(value).split("`")
    if len(pieces) % 2 == 0:
        return plain(value)
    return "".join(code(piece) if place % 2 else _plain_piece(piece) for place, piece in enumerate(pieces))


def _plain_piece(text: str) -> str:
    """`plain` that keeps the spaces around."""
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :] if text.strip() else ""
    return left + plain(text) + right


def code_cell(value: Any) -> str:
    """`code` inside a table, where a bar would end the cell."""
    # A backslash that stands there already would escape ours.
    return code(value).replace("\\|", "\\\u2060|").replace("|", "\\|")


def _line(value: Any) -> str:
    text = "".join(c if c.isprintable() else " " for c in _HIDDEN.sub("", str(value)))
    return " ".join(text.split())


def _report_front(context: Mapping[str, Any]) -> ModelCardData:
    goal = context["goal"]
    best = (context.get("confirmation") or context.get("best") or {}).get("evaluation")
    extra = {"postdoc_goal": context["published_goal"]} if context.get("published_goal") else {}
    found = ModelCardData(
        model_name=_line(goal["title"]) or "experiment",
        base_model=_line(goal["base_model"]),
        base_model_relation="finetune",
        **_licence_fields(normalise_licence(context.get("model_licence"))),
        language=[code for code, share in (context.get("languages") or {}).items() if share >= _LEAST_LANGUAGE] or None,
        library_name="transformers",
        pipeline_tag=TASK,
        datasets=list(context.get("datasets") or ()) or None,
        metrics=[goal["metric"]],
        tags=["postdoc", *([_line(goal["method"])] if goal.get("method") else [])],
        eval_results=[_result(best)] if best else None,
        **extra,
    )
    if not best:
        found.model_name = None  # without results it has no place in a card's fields
    return found


def _result(evaluation: Mapping[str, Any]) -> EvalResult:
    """As the Hub's `model-index` has it (https://github.com/huggingface/hub-docs/blob/main/modelcard.md)."""
    measure = metric_named(evaluation["metric"])
    name = _line(evaluation["benchmark"])
    return EvalResult(
        task_type=TASK,
        dataset_type=name,
        dataset_name=name,
        dataset_split=_line(evaluation["split"]),
        metric_type=evaluation["metric"],
        metric_value=round((100 if measure.is_share else 1) * evaluation["value"], 4),
        metric_name=f"{evaluation['metric']} (%)" if measure.is_share else evaluation["metric"],
    )


def _licence_fields(identifier: str | None) -> dict[str, str]:
    """The Hub's fields: names that it does not list go under `license: other` with a `license_name`."""
    if identifier is None:
        return {"license": "unknown"}
    if " " not in identifier and licence_gate(identifier).ok:
        return {"license": identifier}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", identifier).strip("-")}


def _changes(changed: Any) -> str:
    """What a run changed, as Markdown."""
    if not changed:
        return ""
    if isinstance(changed, str):
        return plain(changed)
    return ", ".join(
        f"{code_cell(c['key'])}: {code_cell(c.get('before'))} → {code_cell(c.get('after'))}" for c in changed
    )


def _scan_facts(scan: ScanReport | Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of a scan: counts and the verdict, none of the matched words."""
    data = scan.as_dict() if isinstance(scan, ScanReport) else scan
    against = f" against {scan.items:,} evaluation items" if isinstance(scan, ScanReport) else ""
    overlapping = len({match["row"] for match in data["flagged"]})
    kinds = Counter(kind for kind, _ in {(match["kind"], match["row"]) for match in data["flagged"]})
    how = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common())})" if kinds else ""
    dropped = f" Those {data['dropped']:,} rows were dropped and are not trained on." if data.get("dropped") else ""
    return {
        "verdict": data["verdict"],
        "sentence": f"{data['rows']:,} training rows were scanned{against}: {overlapping:,} overlap{how}, "
        f"{data['unscannable']:,} rows or items could not be scanned.{dropped}",
        "seconds": data["seconds"],
        "bytes": data["bytes"],
    }


def _budget_line(budget: Mapping[str, Any] | None) -> str:
    """`20.00 USD, 4 h of job time, 4 training runs, 24 h in all`; ceilings that are not set are left out."""
    shown = (
        ("usd", "{:.2f} USD"),
        ("gpu_hours", "{:g} h of job time"),
        ("runs", "{} training runs"),
        ("wall_hours", "{:g} h in all"),
    )
    values = budget or {}
    return ", ".join(text.format(values[name]) for name, text in shown if values.get(name) is not None)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else str(timedelta(seconds=round(seconds)))


def _yaml(front: CardData) -> str:
    """The Hub's own order and names; every text in it visible and on one line."""
    return yaml.safe_dump(_visible(front.to_dict()), sort_keys=False, allow_unicode=True, width=1000).strip()


def _visible(value: Any) -> Any:
    """`value` with every text in it on one line and without characters that are not drawn."""
    if isinstance(value, dict):
        return {name: _visible(content) for name, content in value.items()}
    if isinstance(value, list):
        return [_visible(content) for content in value]
    return _line(value) if isinstance(value, str) else value


@cache
def _environment() -> Environment:
    # The output is Markdown, not HTML: values pass through `plain` or `code` in the templates instead of autoescape.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    for shown in (plain, prose, code, code_cell, percent, differing, margin, measured, duration):
        environment.filters[shown.__name__] = shown
    return environment


def _render(template: str, **values: Any) -> str:
    text = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
