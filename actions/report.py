"""The report of a call: the job's summary, annotations on the recipe's lines and, when asked, one comment.

Everything in it that others wrote (names, recipes, logs) is made inert first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from actions import checkout
from actions.request import Request, request_of
from actions.result import Result, Score
from actions.workflow_commands import MOST_ANNOTATIONS, add_summary, annotate, read_event, set_outputs
from bot.domain.curves import Curve, sparkline, xychart
from bot.domain.diagnosis import Diagnosis, Severity
from bot.domain.inert import code, fenced, inert_line
from bot.domain.metrics import DEFAULT, metric_named
from bot.errors import PostdocError, UserError

REPORT = "report.md"
_LEVELS = {Severity.FATAL: "error", Severity.HARMFUL: "warning", Severity.ADVICE: "notice"}
_GENEROUS_LINES = 30


def main(environment: Mapping[str, str] = os.environ) -> int:
    folder = Path(environment["POSTDOC_FOLDER"])
    result = Result.read(folder) or _killed(environment.get("INPUT_MODE", ""))
    _end_what_still_runs(folder)
    text = markdown(result)
    artifact = folder / "artifact"
    artifact.mkdir(parents=True, exist_ok=True)
    (artifact / REPORT).write_text(text, encoding="utf-8")
    result.write(artifact)
    add_summary(text)
    annotate_diagnoses(result.diagnoses)
    outputs = {"report": str(artifact / REPORT), "artifact": str(artifact), "state": result.state}
    set_outputs(outputs | {"artifact-name": artifact_name(environment)})
    with contextlib.suppress(UserError):  # execute has told what is wrong with the inputs
        request = request_of(environment, read_event())
        if request.comment:
            comment(request, text)
    return 0


def artifact_name(environment: Mapping[str, str]) -> str:
    """Without what GitHub refuses in a name: https://github.com/actions/upload-artifact#inputs"""
    given = environment.get("INPUT_ARTIFACT", "").strip()
    name = given or f"postdoc-{environment.get('INPUT_JOB', '').strip() or environment.get('INPUT_MODE', '').strip()}"
    return "".join("-" if character in '":<>|*?\r\n\\/' else character for character in name)[:200]


def _killed(mode: str) -> Result:
    return Result(mode, "failed", 1, "The step ended without a result: it was killed, or its machine went away.")


def _end_what_still_runs(folder: Path) -> None:
    """A job lives under a supervisor of its own, which outlives a step that was killed."""
    if not (folder / "jobs").is_dir():
        return
    from runners.local import LocalRunner

    runner = LocalRunner(folder / "jobs")
    for job_id in runner.jobs():
        status = runner.status(job_id)
        if status is not None and not status.state.ended:
            runner.cancel(job_id)


def comment(request: Request, text: str) -> None:
    """A comment that cannot be written is a notice: a fork's pull request gets a token that may only read."""
    from actions.pull_request import post_comment

    number = checkout.pull_request_number(request.event)
    if number is None:
        annotate("notice", "`comment: true` needs an event of a pull request; nothing was posted.", title="Postdoc")
        return
    try:
        print(f"commented: {post_comment(request, number, text)}", flush=True)
    except PostdocError as error:
        annotate("notice", f"{error}. Comments need `pull-requests: write`.", title="Postdoc")


def annotate_diagnoses(diagnoses: tuple[Diagnosis, ...]) -> None:
    """The most harmful first, and no more of them than GitHub shows; the report has all."""
    for each in diagnoses[:MOST_ANNOTATIONS]:
        hint = f" Try {each.key}: {each.suggested}." if each.key and each.suggested is not None else ""
        title = f"{str(each.symptom).replace('_', ' ')} ({round(100 * each.confidence)} % sure)"
        annotate(_LEVELS[each.severity], f"{each.cause}{hint}", title=title, file=each.file, line=each.line)


# --- The text -------------------------------------------------------------------------------------------------------


def markdown(result: Result) -> str:
    parts = [f"## Postdoc {result.mode}: {result.state}", inert_line(result.headline, 1000)]
    parts += ["\n".join(_score_table(result.scores))] if result.scores else []
    parts += ["\n".join(_comparison_table(result))] if result.comparison is not None else []
    parts += ["\n".join(_diagnosis_list(result.diagnoses))] if result.diagnoses else []
    parts += list(_charts(result))
    parts += list(result.notes)
    if result.log_tail.strip():
        tail = "\n".join(result.log_tail.strip().splitlines()[-_GENEROUS_LINES:])
        parts.append(f"The log's last lines:\n\n{fenced(tail)}")
    parts.append(_spent(result))
    return "\n\n".join(part for part in parts if part) + "\n"


def _score_table(scores: tuple[Score, ...]) -> Iterator[str]:
    yield "| model | value | 95 % interval | standard error | n | benchmark |"
    yield "| --- | ---: | :---: | ---: | ---: | --- |"
    for score in scores:
        benchmark = f"{code(score.benchmark, 80)}, {score.split}" if score.benchmark else score.split
        measure = metric_named(score.metric or DEFAULT)
        name = score.name if score.model in (score.name, "") else f"{score.name} {code(score.model, 80)}"
        yield (
            f"| {name} | {measure.said(score.value)} | {measure.bare_interval(score.low, score.high)} "
            f"| {measure.said_size(score.standard_error).removesuffix(measure.unit)} | {score.n:,} | {benchmark} |"
        )


def _comparison_table(result: Result) -> Iterator[str]:
    found = result.comparison
    assert found is not None
    sure = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.2g}"
    needed = f"{found.n_needed:,}" if found.n_needed else "–"
    measure = metric_named(found.metric)
    low, high, change = (
        measure.said_difference(one).replace("\u2212", "-") for one in (found.ci_low, found.ci_high, found.difference)
    )
    change += measure.unit
    yield "| verdict | difference | 95 % interval | p | only base right | only head right | n | n needed |"
    yield "| --- | ---: | :---: | ---: | ---: | ---: | ---: | ---: |"
    yield (
        f"| **{found.verdict}** | {change} | {low} to {high} | {sure} "
        f"| {found.discordant[0]:,} | {found.discordant[1]:,} | {found.n:,} | {needed} |"
    )


def _diagnosis_list(diagnoses: tuple[Diagnosis, ...]) -> Iterator[str]:
    yield "### Diagnosis"
    yield ""
    for each in diagnoses:
        place = code(f"{each.file}:{each.line}" if each.line else each.file, 200)
        hint = f" Try {code(f'{each.key}: {each.suggested}', 120)}." if each.key and each.suggested is not None else ""
        symptom = str(each.symptom).replace("_", " ")
        yield f"- **{symptom}** ({each.severity}), {place}: {inert_line(each.cause, 600)}{hint}"


def _charts(result: Result) -> Iterator[str]:
    for name, points in result.curves.items():
        curve = Curve(name, [(int(step), value) for step, value in points])
        finite = curve.finite()
        if not finite:
            yield f"{code(name)} has no point that is a number."
            continue
        (first_step, first), (last_step, last) = finite[0], finite[-1]
        lost = len(points) - len(finite)
        missing = f" {lost:,} of {len(points):,} points are not numbers." if lost else ""
        yield (
            f"{code(name)} from {first:.4g} (step {first_step:,}) to {last:.4g} (step {last_step:,}) "
            f"{sparkline([value for _, value in points])}{missing}"
        )
        yield xychart(curve)


def _spent(result: Result) -> str:
    price = f", {result.cost_usd:.2f} USD at the price that was named" if result.cost_usd is not None else ""
    return f"<sub>{result.seconds:,.0f} s of jobs{price}.</sub>" if result.seconds else ""


if __name__ == "__main__":
    sys.exit(main())
