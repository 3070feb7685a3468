"""What the language model had to say: in a review and in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.conversation.messages.tables import folded
from bot.conversation.messages.wording import counted, listed, setting, usd
from bot.domain.experiment import Experiment, Run
from bot.domain.inert import code, fenced, inert_line
from bot.domain.thought import Outcome, Thought

_MOST_SHOWN = 6_000
"""Characters of a rewritten script in a comment; the commit has all of it."""
_INSTEAD = {
    Outcome.NOTHING: "proposed nothing of its own",
    Outcome.REFUSED: "came to nothing",
    Outcome.AWAY: "did not answer",
    Outcome.BUDGET: "stopped at its limit",
    Outcome.CIRCLING: "went round in circles and was stopped",
    Outcome.UNAVAILABLE: "could not be asked",
}


def remedy_words(remedy: Mapping[str, Any]) -> str:
    """`learning_rate` to `0.001` and a rewritten `train.py`: what a remedy changes, without a verb."""
    scripts = dict(remedy.get("scripts") or {})
    settings = {remedy["key"]: remedy.get("value")} | dict(remedy.get("also") or {})
    said = [f"{code(key, 64)} to {code(setting(value), 80)}" for key, value in settings.items() if key not in scripts]
    return listed([*said, *(f"a rewritten {code(path, 64)}" for path in scripts)])


def thought_section(experiment: Experiment, run: Run | None) -> str:
    """What the model was asked about this run (None: the first plan), what it said, and what it cost."""
    thought = experiment.thought_on(run.n if run is not None else 0)
    if thought is None or not thought.over:
        return ""
    who = f"The language model ({code(thought.model, 120)}, {_price(thought)})" if thought.model else "A language model"
    refused = [inert_line(why, 300) for why in thought.refusals]
    tries = folded(f"Refused proposals ({len(refused)})", "\n".join(f"- {why}" for why in refused)) if refused else ""
    match thought.outcome:
        case Outcome.ADOPTED:
            shown = _shown(thought)
            said = f"{who} proposed this: {inert_line(thought.why, 1200)}{_instead_of(thought)}"
            return "\n\n".join(part for part in (f"### Proposed by the language model\n\n{said}", shown, tries) if part)
        case Outcome.QUESTION:
            said = f"**{who} asks:** {inert_line(thought.why, 1000)} The goal goes on with the playbook meanwhile."
        case outcome:
            how = _INSTEAD.get(outcome or Outcome.NOTHING, "came to nothing")
            said = f"{who} {how}, so the playbook goes on: {inert_line(thought.why, 600)}"
    return "\n\n".join(part for part in (said, tries) if part)


def _price(thought: Thought) -> str:
    return f"{counted(thought.turns, 'turn')}, {usd(thought.usd) if thought.usd else 'no money'}"


def _instead_of(thought: Thought) -> str:
    if not thought.instead_of or thought.instead_of.get("kind") == "ablation":
        return ""
    return f"\n\nThe playbook would have changed {remedy_words(thought.instead_of)}."


def _shown(thought: Thought) -> str:
    """The scripts that it rewrote, to be read before anybody agrees."""
    files: Mapping[str, str] = (thought.proposal or {}).get("files") or {}
    parts = []
    for path, text in files.items():
        cut = "" if len(text) <= _MOST_SHOWN else f"\n\nOf {len(text):,} characters; the commit has all of them."
        parts.append(folded(code(path, 64), f"{fenced(text[:_MOST_SHOWN], 'python')}{cut}"))
    return "\n\n".join(parts)
