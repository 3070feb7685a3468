"""The pull request's words: title, body, plan, the question for consent, and the messages of its commits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bot.conversation.messages.keys import message
from bot.conversation.messages.replies import spend_words
from bot.conversation.messages.research import research_sections
from bot.conversation.messages.review import remedy_label
from bot.conversation.messages.tables import budget_words, folded, goal_table, table
from bot.conversation.messages.thoughts import remedy_words, thought_section
from bot.conversation.messages.wording import (
    changes,
    counted,
    duration,
    goal_of,
    model_name,
    scored,
    short,
    usd,
)
from bot.conversation.policy import Policy, skip_ci_trailer
from bot.domain.budget import Spend
from bot.domain.experiment import Experiment
from bot.domain.inert import clipped, code, inert_line, inert_plain, inert_sentence
from bot.domain.metrics import Counting
from bot.domain.statistics import USUAL_CORRELATION, minimum_detectable_unpaired

PULL_REQUEST = "pull-request"


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What the preflight found. None means that it is not known, which is said too."""

    method: str = "sft"
    recipe_source: str = ""
    """Where the recipe comes from, one phrase: the goal itself, or the playbook's row with its source."""
    machine: str = ""
    rows: int | None = None
    validation_rows: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    columns: Sequence[str] = ()
    """What each part of a row was made from, with the evidence."""
    licence: str | None = None
    licence_verdict: str = ""
    """Of base, teacher and data together: one sentence."""
    licence_duties: Sequence[str] = ()
    """What the licences ask of a published model, one sentence each."""
    quality: Sequence[str] = ()
    """What the audit says of rows: keep, filter or refuse, with the reason."""
    scan_verdict: str | None = None
    """clean, contaminated or unclear."""
    scan_flagged: int = 0
    scan_rows: int | None = None
    scan_dropped: int = 0
    """Rows that shared text with evaluation items and were left out, because the policy says so."""
    seconds_per_run: float | None = None
    usd_per_run: float | None = None
    estimated: bool = False
    """Time and price come from arithmetic; no run has been timed."""
    memory: str = ""
    """What training needs, of how much there is, one phrase; empty where it is not known."""
    warnings: Sequence[str] = ()
    """Sentences of the preflight's own."""
    published: Sequence[str] = ()
    """Models of the Hub beside and from the base, which a run's weights will be told from."""
    published_problem: str = ""
    research: Mapping[str, Any] = field(default_factory=dict)
    """`bot.research.planner.Findings` as plain data; empty where nothing was asked."""
    consent: str = ""
    """One sentence: who agreed to how much, or that nobody has yet."""
    next_step: str = ""


def pull_request_title(experiment: Experiment) -> str:
    goal = goal_of(experiment)
    title = f"{goal.measure.aim} {model_name(goal)} on {goal.benchmark} to {goal.said_target}"
    return clipped(inert_plain(title), 240)


def pull_request_body(experiment: Experiment, facts: PlanFacts) -> str:
    goal = goal_of(experiment)
    folder = experiment.folder
    files = (
        f"Everything is in `{folder}/`: `goal.yaml` is the contract, `recipe.yaml` the hyperparameters (one per line), "
        "`train.py` the script, `data/` how the training set is built. Results of each run are added under `runs/`."
    )
    by_hand = f"```sh\ncd {folder}\nuv run train.py --config recipe.yaml\n```"
    return message(
        experiment.goal_id,
        PULL_REQUEST,
        f"For #{experiment.issue}: {goal.measure.aim.lower()} {code(goal.base_model, 120)} to {goal.said_target} "
        f"{code(goal.metric)} on {code(goal.benchmark, 120)}.",
        "### Plan",
        _plan_sections(experiment, facts),
        thought_section(experiment, None),
        "### How to take part",
        "Each run is reviewed here, with what went wrong on the line that is blamed. Accept a suggestion, push to this "
        "branch, or comment `/postdoc help`. Accepting or pushing spends nothing by itself.",
        folded("Contract and files", f"{goal_table(goal)}\n\n{files}\n\nBy hand:\n\n{by_hand}"),
    )


def plan(experiment: Experiment, facts: PlanFacts) -> str:
    """The answer to `plan`: the next run, priced before it costs anything."""
    changed = changes(experiment.changed)
    heading = (
        f"**The next run**, of the recipe at {short(experiment.head_sha)}" if experiment.head_sha else "**The plan**"
    )
    return f"{heading}{f': {changed}' if changed else ''}.\n\n{_plan_sections(experiment, facts)}"


def _with_examples(experiment: Experiment) -> list[tuple[str, str]]:
    """The base model's few-shot score beside its zero-shot one: a gain up to there may be the form alone."""
    base = experiment.baseline
    if base is None or (shown := base.with_shots) is None:
        return []
    return [(f"The same with {counted(int((base.few_shot or {})['shots']), 'example')}", scored(shown))]


def _plan_sections(experiment: Experiment, facts: PlanFacts) -> str:
    baseline = (
        scored(experiment.baseline) if experiment.baseline is not None else "measured first, before anything is trained"
    )
    rows = [
        ("Method", code(facts.method)),
        ("Recipe", inert_line(facts.recipe_source, 400) or "given in `recipe.yaml`"),
        ("Data", _data_words(facts)),
        ("Licence of the data", code(facts.licence) if facts.licence else "not known"),
        *([("Licences together", inert_sentence(facts.licence_verdict, 400))] if facts.licence_verdict else []),
        ("Contamination scan", _scan_words(facts)),
        *([("Lineage", _lineage_words(facts))] if facts.published or facts.published_problem else []),
        ("Untouched base model", baseline),
        *_with_examples(experiment),
        ("Machine", inert_line(facts.machine) or "this server's"),
        *([("Memory", inert_line(facts.memory, 200))] if facts.memory else []),
        ("One run", _run_words(facts)),
        ("At most", budget_words(experiment.ceilings)),
    ]
    parts = [table(("", ""), rows)]
    if facts.warnings:
        parts.append("\n".join(f"- {inert_line(warning, 500)}" for warning in facts.warnings))
    if facts.quality:
        lines = "\n".join(f"- {inert_line(line, 300)}" for line in facts.quality)
        parts.append(folded("What the audit found in the rows", lines))
    if facts.columns:
        lines = "\n".join(f"- {inert_line(line, 400)}" for line in facts.columns)
        parts.append(folded("How the columns of the data were read", lines))
    if facts.licence_duties:
        lines = "\n".join(f"- {inert_line(duty, 500)}" for duty in facts.licence_duties)
        parts.append(folded("What the licences ask of the trained model", lines))
    parts += research_sections(facts.research)
    if blind := _blind_words(experiment):
        parts.append(blind)
    if facts.consent:
        parts.append(facts.consent)
    first = "" if experiment.baseline is not None else "the untouched base model is evaluated, then "
    parts.append(facts.next_step or f"Next: {first}the first run is trained, evaluated and reviewed.")
    return "\n\n".join(parts)


def _blind_words(experiment: Experiment) -> str:
    """A warning where the dev items are too few for the gain that is asked for, "" where they will do."""
    goal, base = goal_of(experiment), experiment.baseline
    if base is None or base.measure.counting is not Counting.RIGHT or not 0 < base.value < 1:
        return ""
    wanted = base.measure.gain(base.value, goal.target)
    least = minimum_detectable_unpaired(base.value, base.n, correlation=USUAL_CORRELATION)
    if wanted >= least:
        return ""
    far, least_said = base.measure.said_size(wanted), base.measure.said_size(least)
    return (
        f"**Few items for this target:** it lies {far} from the base model, and {base.n} dev items show differences "
        f"from about {least_said} on (paired, power 0.8, two models' answers correlating by .5). A run may reach the "
        "target and still not be told from the base model."
    )


def _data_words(facts: PlanFacts) -> str:
    if facts.rows is None:
        return "not built yet"
    held = f", {facts.validation_rows:,} held out for validation" if facts.validation_rows else ""
    dropped = [f"{number:,} {inert_line(reason, 60)}" for reason, number in facts.dropped.items() if number]
    return f"{counted(facts.rows, 'row')}{held}" + (f"; dropped: {', '.join(dropped)}" if dropped else "")


def _lineage_words(facts: PlanFacts) -> str:
    """Which published models the weights are told from; more of them than are named may be known."""
    problem = f" ({inert_line(facts.published_problem, 200)})" if facts.published_problem else ""
    if not facts.published:
        return f"no published model is known to tell the weights from{problem}"
    named = ", ".join(code(name, 80) for name in facts.published[:3])
    return f"told from {counted(len(facts.published), 'published model')}: {named}{problem}"


def _scan_words(facts: PlanFacts) -> str:
    of = f" of {counted(facts.scan_rows, 'row')}" if facts.scan_rows is not None else ""
    match facts.scan_verdict:
        case None:
            return "not done yet"
        case "clean":
            return f"clean: none{of} shares text with an evaluation item"
        case "contaminated" if facts.scan_dropped:
            return f"{counted(facts.scan_dropped, 'row')}{of} sharing text with evaluation items left out"
        case "contaminated":
            return f"**contaminated**: {counted(facts.scan_flagged, 'row')}{of} share text with evaluation items"
        case _:
            return f"unclear: {counted(facts.scan_flagged, 'row')}{of} could not be judged"


def _run_words(facts: PlanFacts) -> str:
    time = f"about {duration(facts.seconds_per_run)}" if facts.seconds_per_run is not None else "time not known yet"
    basis = " (estimated: no run has been timed yet)" if facts.estimated else ""
    if facts.usd_per_run is None:
        return f"{time}, price not known{basis}"
    return f"{time}, " + (f"about {usd(facts.usd_per_run)}" if facts.usd_per_run else "no charge") + basis


_COLUMN_QUESTION = re.compile(r"prepare\.py: (.*(?:which column to use|not a column of the data).*)")
_COLUMN_ANSWER = " Write into recipe.yaml "


def column_question(line: str) -> str | None:
    """What data/prepare.py asks in its last line, as a question in the issue; None for a line that asks nothing."""
    found = _COLUMN_QUESTION.search(line)
    if found is None:
        return None
    asked, _, answers = found[1].partition(_COLUMN_ANSWER)
    lines = [code(each, 300) for each in re.findall(r"`([^`]{1,300})`", answers)]
    how = f"such as {', or '.join(lines)}" if lines else "such as `data_prompt_column: question`"
    return (
        f"The columns of the training data: {inert_line(asked.rstrip('.'), 900)}. Write under **Starting recipe** in "
        f"the issue which to use, {how}; what those lines leave open is filled in."
    )


def consent_question(
    experiment: Experiment, *, sha: str, left: Spend, what: Sequence[str] = (), facts: PlanFacts | None = None
) -> str:
    """What would be spent at most (`left`), what the next run is likely to take, and the exact line that agrees."""
    changed = changes(experiment.changed)
    likely = f"The next run is likely to take {_run_words(facts)}." if facts and facts.seconds_per_run else ""
    return message(
        experiment.goal_id,
        f"consent/{sha[:12]}",
        f"**May I train the recipe at {short(sha)}?** That covers at most {spend_words(left)}.",
        f"Changed since the last run: {changed}." if changed else "",
        likely,
        "\n".join(f"- {inert_line(sentence, 400)}" for sentence in what),
        f"To agree, comment:\n\n```\n/postdoc run {sha[:12]}\n```",
        "A later push or a changed goal voids this. To decline, do nothing, or comment `/postdoc stop`.",
    )


def remedy_question(
    experiment: Experiment, *, sha: str, left: Spend, why: str, changed: Mapping[str, Sequence[Any]],
    buttons: bool = True,
) -> str:  # fmt: skip
    """The remedy of the last run goes beyond what was agreed: shown with its price, and left to a person.

    `changed` is {key: [as it is, as it would be]}; `buttons` says whether the run's check has one.
    """
    run = experiment.run
    assert run is not None and run.remedy is not None
    label, value = remedy_label(experiment, run), changes(changed) or remedy_words(run.remedy)
    ways = [] if run.remedy.get("label") else ["commit the suggestion on its line"]
    ways += ["press **Accept fix** on the run's check"] if buttons else []
    accept = ", ".join(ways) + "."
    if label:
        comment = f"comment:\n\n```\n/postdoc accept {label}\n```"
        accept = ", ".join([*ways, f"or {comment}"]) if ways else comment
    return message(
        experiment.goal_id,
        f"consent/{sha[:12]}",
        f"**May I change {value} and train again?** Up to {spend_words(left)} are left of the budget.",
        f"- {inert_line(why, 400)}",
        inert_line(str(run.remedy["why"]), 600),
        f"To accept it, {accept}",
        "Accepting commits the change; training it is asked about again unless the policy grants it. "
        "`/postdoc set key=value` tries something else.",
    )


CONSENT_CHECK = "postdoc / consent"
"""Name of the check that waits for a person on the head that is asked about."""


def consent_check(experiment: Experiment, sha: str, left: Spend, *, buttons: bool = True) -> tuple[str, str]:
    """(title, summary) of the check while nobody has agreed; `buttons` says whether it has one."""
    title = f"May I train this? At most {spend_words(left)}"
    summary = (
        f"Nothing is trained until somebody who may train agrees to {short(sha)}: "
        f"{'with the button **Agree**, or ' if buttons else ''}by the comment `/postdoc run {sha[:12]}` on the pull "
        "request. Doing nothing declines."
    )
    return clipped(inert_plain(title), 255), summary


def agreed_check(by: str, left: Spend) -> tuple[str, str]:
    """(title, summary) of the check once somebody has."""
    return clipped(inert_plain(f"Agreed by {by}: at most {spend_words(left)}"), 255), "The next run may start."


class CommitMessage(NamedTuple):
    headline: str
    body: str

    def __str__(self) -> str:
        return f"{self.headline}\n\n{self.body}"


def proposal_message(experiment: Experiment) -> CommitMessage:
    """The commit that opens the pull request."""
    goal = goal_of(experiment)
    headline = inert_plain(f"Propose {model_name(goal)} on {goal.benchmark} to {goal.said_target}")
    return CommitMessage(clipped(headline, 72), f"Goal {goal.hash}.\n\n{_trailer(experiment, 0)}")


def commit_message(
    experiment: Experiment, run: int, changed: Mapping[str, Sequence[Any]], why: str, *, method: str = "",
    scripts: Sequence[str] = (),
) -> CommitMessage:  # fmt: skip
    """The commit that changes the recipe after run `run` (0: before the first): what changed and why. `method` is that
    of the stage that the commit begins, where it does; `scripts` are those that it rewrites."""
    said = inert_plain(changes(changed, marked=False)) or "results and report"
    after = f" after run {run:02d}" if run else ""
    whole = f"{said[:1].upper()}{said[1:]}{after}" if not changed else f"Set {said}{after}"
    if scripts:
        whole = f"Rewrite {inert_plain(', '.join(scripts))}{after}" + (f", set {said}" if changed else "")
    if method:
        whole = f"Begin the stage {inert_plain(method)}{after}: {said}"
    headline = clipped(whole, 72)
    full = f"{whole}\n\n" if headline != whole else ""
    reason = clipped(inert_plain(" ".join(why.split())), 2_000)
    return CommitMessage(headline, f"{full}{reason}\n\n{_trailer(experiment, run)}".lstrip("\n"))


def closing_message(experiment: Experiment) -> CommitMessage:
    """The commit that carries the last results."""
    last = experiment.run.n if experiment.run is not None else 0
    headline = clipped(inert_plain(f"Results of run {last:02d}: {experiment.state}"), 72)
    return CommitMessage(headline, f"{inert_plain(experiment.reason)}\n\n{_trailer(experiment, last)}".lstrip("\n"))


def _trailer(experiment: Experiment, run: int) -> str:
    skip = skip_ci_trailer(Policy.from_dict(experiment.policy))
    return f"{skip}Postdoc-Run: {experiment.issue}/{run:02d}"
