"""What the check of a changed policy says: its mistakes on their lines, or what the change means in sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bot.conversation.messages.keys import LONGEST_CHECK_TEXT, LONGEST_CHECK_TITLE, within_limit
from bot.conversation.messages.tables import sentences
from bot.conversation.messages.wording import counted, hours
from bot.conversation.policy import POLICY_PATH, Policy, cut_words
from bot.conversation.policy.value import AutoApprove
from bot.domain.inert import clipped, code

POLICY_CHECK = "postdoc / policy"
_MOST_ANNOTATIONS = 50
"""GitHub takes no more in one request: https://docs.github.com/en/rest/checks/runs"""
_TIERS = {
    "read": "Asking for help and status",
    "plan": "Opening a goal, stopping and planning",
    "train": "Agreeing to train, and changing what is trained",
    "admin": "Raising a budget, publishing and halting",
}


class PolicyReport(NamedTuple):
    """A finished check run, as GitHub takes it."""

    conclusion: str
    """success or failure."""
    output: dict[str, Any]


def policy_mistakes(problems: Sequence[str]) -> PolicyReport:
    """The file cannot be read; `problems` begin with line:column."""
    annotations = [_annotation(*_split(problem), level="failure") for problem in problems[:_MOST_ANNOTATIONS]]
    summary = (
        f"`{POLICY_PATH}` cannot be read as it stands here:\n\n{sentences(problems)}\n\n"
        "On the default branch it would stop every new goal, so it is better mended before it is merged."
    )
    return _report("failure", f"{counted(len(problems), 'mistake')} in the policy", summary, annotations)


def policy_meaning(
    before: Policy | None, after: Policy, *, removed: bool, cut: Policy, places: Mapping[str, tuple[int, int]]
) -> PolicyReport:
    """The file is sound: what changes when it is merged.

    `before` is the default branch's policy, None when that one cannot be read; `cut` is `after` as this server bounds
    it; `places` say on which line each setting stands.
    """
    lead = "The policy file is removed, so the defaults hold." if removed else "The policy can be read."
    parts = [f"{lead} Nothing is obeyed from a pull request: it counts once it is on the default branch."]
    if before is None:
        parts += ["The default branch's file cannot be read at present. With this one:", sentences(after.lines())]
    elif changed := policy_changes(before, after):
        parts += ["What changes then:", sentences(changed)]
    else:
        parts.append("It means the same as the default branch's.")
    annotations = []
    if cut.cuts:
        parts += ["This server allows less, and that is what will hold:", sentences(cut_words(cut.cuts))]
        for each, words in zip(cut.cuts, cut_words(cut.cuts), strict=True):
            if each.path in places:
                said = f"This server's own policy allows less: {words}."
                annotations.append(_annotation(*places[each.path], said, level="notice"))
    title = "The policy is removed: the defaults hold" if removed else "The policy can be read"
    return _report("success", title, "\n\n".join(parts), annotations[:_MOST_ANNOTATIONS])


def policy_changes(before: Policy, after: Policy) -> list[str]:
    """What a change of policy means, one sentence for each setting whose meaning changes."""
    said = []
    if before.labels != after.labels:
        said.append(f"Issues become goals by the label {code(after.labels.goal, 60)} {_instead(before.labels.goal)}.")
    if _granted(before.consent) != _granted(after.consent):
        more = _grants_more(before.consent, after.consent)
        said.append(
            f"{'**More is granted' if more else 'Less is granted'} without asking{'**' if more else ''}, per goal: "
            f"{_granted(after.consent)} instead of {_granted(before.consent)}."
        )
    said += _ceilings(before, after)
    if before.self_approve_usd != after.self_approve_usd:
        said.append(
            f"The author of a goal may alone agree to budgets of up to {after.self_approve_usd:g} USD "
            f"instead of {before.self_approve_usd:g} USD."
        )
    for tier, role in after.permissions.items():
        if role != before.permissions[tier]:
            said.append(f"{_TIERS[str(tier)]} takes the role `{role}` {_instead(before.permissions[tier])}.")
    keys = "Lines of the recipe that may change inside one consent"
    said += _list_change(keys, before.consent.recipe_keys, after.consent.recipe_keys)
    scripts = "Scripts that the language model may rewrite inside one consent"
    said += _list_change(scripts, before.consent.scripts, after.consent.scripts)
    if before.licences_allowed != after.licences_allowed:
        said.append(f"Licences allowed: {_names(after.licences_allowed, 'any that is known')}.")
    said += _list_change("Addresses that training data may come from", before.data_urls, after.data_urls)
    said += [words(after) for name, words in _SINGLE.items() if _value(before, name) != _value(after, name)]
    return said


_SINGLE: Mapping[str, Callable[[Policy], str]] = {
    "publish.namespace": lambda p: (
        f"Models are published under {code(p.publish.namespace, 100)}."
        if p.publish.namespace
        else "Models are published where the server says."
    ),
    "publish.private": lambda p: (
        "Published models are private." if p.publish.private else "**Published models can be seen by everybody.**"
    ),
    "publish.on_merge": lambda p: (
        "A goal that was met is published when its pull request is merged, without being asked."
        if p.publish.on_merge
        else "Nothing is published without `/postdoc publish`."
    ),
    "skip_ci": lambda p: f"Commits made by Postdoc {'carry' if p.skip_ci else 'no longer carry'} `[skip ci]`.",
    "contamination": lambda p: (
        "Training rows that hold evaluation items are dropped, and training goes on without them."
        if p.contamination == "drop"
        else "Training data with rows that hold evaluation items is refused."
    ),
    "usd_per_hour": lambda p: (
        f"An hour on your own machines counts as {p.usd_per_hour:g} USD."
        if p.usd_per_hour
        else "Hours on your own machines are not charged to a goal."
    ),
}


def _value(policy: Policy, path: str) -> Any:
    value: Any = policy
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _ceilings(before: Policy, after: Policy) -> list[str]:
    said = []
    rows = [
        ("USD for a goal", before.budget.usd, after.budget.usd),
        ("GPU hours for a goal", before.budget.gpu_hours, after.budget.gpu_hours),
        ("runs for a goal", before.budget.runs, after.budget.runs),
        ("hours from consent to end for a goal", before.budget.wall_hours, after.budget.wall_hours),
        ("USD in a month for all goals together", before.month.usd, after.month.usd),
        ("GPU hours in a month for all goals together", before.month.gpu_hours, after.month.gpu_hours),
    ]
    for what, old, new in rows:
        if old != new:
            said.append(f"The ceiling of {what} is {'raised' if new > old else 'lowered'} from {old:g} to {new:g}.")
    return said


def _granted(given: AutoApprove) -> str:
    if not given.runs:
        return "nothing"
    return f"up to {counted(given.runs, 'run')}, {hours(given.gpu_hours)} and {given.usd:g} USD"


def _grants_more(before: AutoApprove, after: AutoApprove) -> bool:
    if not after.runs:
        return False
    if not before.runs:
        return True
    return after.runs > before.runs or after.gpu_hours > before.gpu_hours or after.usd > before.usd


def _list_change(what: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    new = [name for name in after if name not in before]
    gone = [name for name in before if name not in after]
    words = [f"also {_names(new)}"] * bool(new) + [f"no longer {_names(gone)}"] * bool(gone)
    return [f"{what}: {', '.join(words)}."] if words else []


def _names(names: Sequence[str], none: str = "none") -> str:
    listed = ", ".join(code(name, 120) for name in names[:30])
    return listed + (f" and {len(names) - 30} more" if len(names) > 30 else "") if names else none


def _instead(before: str) -> str:
    return f"instead of {code(before, 60)}"


def _split(problem: str) -> tuple[int, int, str]:
    place = re.match(r"(\d+):(\d+) ", problem)
    assert place is not None, problem
    return int(place[1]), int(place[2]), problem[place.end() :]


def _annotation(line: int, column: int, text: str, *, level: str) -> dict[str, Any]:
    return {
        "path": POLICY_PATH,
        "start_line": line,
        "end_line": line,
        "start_column": column,
        "end_column": column,
        "annotation_level": level,
        "title": f"line {line}, column {column}",
        "message": clipped(text, 4_000),
    }


def _report(conclusion: str, title: str, summary: str, annotations: list[dict[str, Any]]) -> PolicyReport:
    output: dict[str, Any] = {
        "title": clipped(title, LONGEST_CHECK_TITLE),
        "summary": within_limit(summary, LONGEST_CHECK_TEXT),
    }
    return PolicyReport(conclusion, output | ({"annotations": annotations} if annotations else {}))
