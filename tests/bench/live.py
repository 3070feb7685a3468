"""`make live BRAIN=provider:model`: three goals of the gym with a real language model, beside the playbook alone.

It needs a key (POSTDOC_BRAIN_KEY) and costs money: no part of the tests. The goals' own budgets hold no money, so what
is spent is watched here and ended at LIVE_USD (5 by default); what a turn costs is said by the price table, or by
POSTDOC_BRAIN_PRICE. One goal of three says nothing about which is better: n = 3.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bot.brain.agent.transcript import Transcript
from bot.brain.model.choice import BrainSettings, model_of
from bot.brain.model.prices import Price
from bot.brain.model.talk import Usage
from bot.domain.thought import Thought
from bot.errors import UserError
from bot.gym.host import WarmHost
from bot.gym.place import chosen
from bot.gym.pursuing import Gym, Pursued
from bot.gym.report import Result
from bot.gym.task_file import SHIPPED, Task, load_tasks

GOALS = 3
MOST_USD = 5.0
_SETTINGS = ("POSTDOC_BRAIN_KEY", "POSTDOC_BRAIN_URL", "POSTDOC_BRAIN_EFFORT", "POSTDOC_BRAIN_CONTEXT_TOKENS")


@dataclass
class Seen:
    """One way of pursuing the goals."""

    results: list[Result] = field(default_factory=list)
    thoughts: dict[str, list[Thought]] = field(default_factory=dict)
    """Of each goal, as its journal told them last."""


def main() -> int:
    brain, words = os.environ.get("BRAIN", ""), sys.argv[1:]
    if not brain:
        print("Write make live BRAIN=anthropic:claude-opus-4-6, with POSTDOC_BRAIN_KEY set.", file=sys.stderr)
        return 2
    given = {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)}
    try:
        tasks = chosen(load_tasks(SHIPPED), words) if words else _first_of_each_kind()
        price = model_of(
            BrainSettings(
                brain,
                given.get("POSTDOC_BRAIN_KEY", ""),
                given.get("POSTDOC_BRAIN_URL", ""),
                given.get("POSTDOC_BRAIN_EFFORT", ""),
                os.environ.get("POSTDOC_BRAIN_PRICE", ""),
            )
        ).price
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    # Nothing is charged to the goals, which have no money: what is spent is counted from the transcripts.
    settings = {"POSTDOC_BRAIN": brain, "POSTDOC_BRAIN_PRICE": "0/0", "POSTDOC_RUNNER": "local", **given}
    most = float(os.environ.get("LIVE_USD") or MOST_USD)
    with tempfile.TemporaryDirectory(prefix="postdoc-live-") as made:
        with_brain = pursued(tasks, Path(made) / "brain", settings, price, most)
        alone = pursued(tasks, Path(made) / "playbook", {"POSTDOC_RUNNER": "local"}, price, most)
        for line in lines(brain, with_brain, alone, usage_in(Path(made) / "brain"), price):
            print(line)
    return 0


def _first_of_each_kind() -> list[Task]:
    kinds = {task.kind: task for task in reversed(load_tasks(SHIPPED))}
    return [kinds[kind] for kind in sorted(kinds)][:GOALS]


def pursued(tasks: Sequence[Task], folder: Path, settings: dict[str, str], price: Price, most_usd: float) -> Seen:
    seen = Seen()

    def look(under_way: Sequence[Pursued]) -> None:
        for goal in under_way:
            seen.thoughts[goal.task.name] = goal.experiment.thoughts if goal.story.events else []
        if price.of(usage_in(folder)) > most_usd:
            raise UserError(f"more than {most_usd:g} USD are spent; set LIVE_USD to allow more")

    folder.mkdir(parents=True)
    with WarmHost(folder / "warm", 1) as host:
        gym = Gym(host, "playbook", 1, settings)
        gym.pursue(tasks, 0, folder / "place", on_turn=look, on_result=seen.results.append)
    return seen


def usage_in(folder: Path) -> Usage:
    """Tokens of every thought below a folder."""
    total = Usage()
    for path in folder.glob("**/brain/thought-*.jsonl"):
        total = total + Transcript(path).conversation.usage
    return total


def lines(brain: str, seen: Seen, alone: Seen, usage: Usage, price: Price) -> list[str]:
    said = [f"{brain} on {len(seen.results)} goals of the gym, one seed, beside the playbook alone"]
    before = {result.name: result for result in alone.results}
    for result in seen.results:
        thoughts = seen.thoughts.get(result.name, [])
        turns = sum(each.turns for each in thoughts)
        adopted = sum(each.outcome == "adopted" for each in thoughts)
        said.append(
            f"  {result.name:<22} {_outcome(result)}, {turns} turns, {adopted} of {len(thoughts)} thoughts adopted; "
            f"playbook {_outcome(before[result.name])}"
        )
    tokens = f"{usage.input + usage.cache_read + usage.cache_write:,} tokens read ({usage.cache_read:,} from the cache)"
    said.append(f"  {tokens}, {usage.output:,} written, {price.of(usage):.2f} USD")
    return said


def _outcome(result: Result) -> str:
    value = f"{result.value:.3f}" if result.value is not None else "no value"
    return f"{'reached' if result.reached else result.state} ({value} of {result.target:g}, {len(result.runs)} runs)"


if __name__ == "__main__":
    sys.exit(main())
