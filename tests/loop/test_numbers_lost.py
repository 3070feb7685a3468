"""An evaluation without a number, of a model whose weights are none: a run without a value, not the goal's end."""

from __future__ import annotations

import math

from bot.domain.evaluation import Evaluation, Sample
from bot.loop.judging import unmeasured
from tests.world import GOOD, World


def evaluation(value: float, *scores: float) -> Evaluation:
    samples = tuple(Sample(str(n), score) for n, score in enumerate(scores))
    return Evaluation("b", "d", "m", "perplexity", value, 0.1, len(scores), "dev", samples=samples)


def test_number_is_missed_in_the_value_and_in_any_item() -> None:
    assert unmeasured(evaluation(12.0, 2.4, 2.5)) is None
    assert "over all items" in (unmeasured(evaluation(math.nan)) or "")
    assert "on 1 of 2 items" in (unmeasured(evaluation(12.0, 2.4, math.inf)) or "")


def test_run_without_a_number_is_diagnosed_and_followed_by_another(world: World) -> None:
    world.runner.script(GOOD | {"evaluate-01": {"value": math.nan}})
    issue = world.open_goal()
    assert world.until_ended(issue) == "met"
    told = world.first(issue, "diagnosed")
    assert told["score"] is None
    assert "found no number on 200 of 200 items" in told["failure"]
