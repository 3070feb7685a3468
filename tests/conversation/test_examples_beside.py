"""The base model's score with examples is shown beside the one without, in the plan and in the ledger."""

from __future__ import annotations

from dataclasses import replace

from bot.conversation.messages.proposal import _with_examples
from bot.conversation.messages.tables import ledger
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import Experiment, Score
from bot.domain.goal import GoalId
from bot.loop.actions.planning import score_of

EVALUATION = Evaluation(
    "gsm8k", "d", "m", "exact_match", 0.1, 0.03, 100, "dev",
    few_shot={"shots": 5, "value": 0.4, "standard_error": 0.049, "n": 100, "strict": 0.4, "lenient": 0.5},
)  # fmt: skip


def experiment(baseline: Score) -> Experiment:
    return Experiment(GoalId("acme/speller#1"), baseline=baseline)


def test_both_scores_are_shown_with_their_intervals() -> None:
    baseline = Score.from_dict(score_of(EVALUATION, "job"))
    assert baseline.with_shots is not None and baseline.with_shots.value == 0.4
    assert baseline.value == 0.1, "what runs are compared with is the score without examples"
    [(name, said)] = _with_examples(experiment(baseline))
    assert name == "The same with 5 examples" and said.startswith("40.0 % (95 % interval 30.") and "n = 100" in said
    rows = [line for line in ledger(experiment(baseline)).splitlines() if line.startswith("| base |")]
    assert len(rows) == 2 and "untouched, with 5 examples" in rows[1] and "40.0 %" in rows[1]


def test_nothing_is_said_where_no_examples_were_asked_for() -> None:
    without = score_of(replace(EVALUATION, few_shot=None), "job")
    assert "few_shot" not in without and "few_shot" not in replace(EVALUATION, few_shot=None).as_dict()
    baseline = Score.from_dict(without)
    assert baseline.with_shots is None and _with_examples(experiment(baseline)) == []
    assert ledger(experiment(baseline)).count("| base |") == 1
