"""What is said of a goal: a recorded journal in words."""

from __future__ import annotations

from typing import Any

import pytest

from bot.domain.experiment import EventKind
from bot.practice.narration import Story, Tone, activity_of, changes_text, entries_of, percent, score_text
from tests.cli.recorded import GOAL, PAGE, rows, story


def entries(kind: str) -> list[Any]:
    """What the recorded journal's events of this kind say."""
    told, found = Story(GOAL, PAGE), []
    for row in rows():
        heard = told.heard([row])
        if row["kind"] == kind:
            found += heard
    return found


def test_contract_tells_target_budget_and_starting_recipe() -> None:
    (entry,) = entries("contract_read")
    assert entry.text == "exact_match on practice/reverse of at least 90 %, starting from postdoc/tiny-qwen3"
    assert entry.details[0].startswith("at most 4 runs, 0.5 h of jobs, 0 USD · goal hash ")
    assert "learning_rate 2.0e-05" in entry.details[1]


def test_plan_tells_rows_licences_and_scan() -> None:
    (entry,) = entries("data_checked")
    assert entry.text == "800 rows to train on, 100 to validate"
    assert entry.details == (
        "licences: apache-2.0 (base model), apache-2.0 (data/reverse)",
        "contamination scan: clean, 0 of 800 rows flagged",
    )


def test_proposal_gives_the_pull_requests_address() -> None:
    (entry,) = entries("proposed")
    assert entry.details == (f"{PAGE}/pull/2",)


def test_diagnosis_names_symptom_line_and_the_numbers_behind_it() -> None:
    score, diagnosis, probe, second_score, clean = entries("diagnosed")
    assert score.text.startswith("0.0 % (0.0 to 1.9, n = 200) · cannot tell it from the baseline")
    assert diagnosis.text == "plateau · recipe.yaml line 8 (learning_rate) · harmful, 90 % sure"
    assert "7.146 (step 5) to 5.244 (step 100)" in diagnosis.details[0]
    assert "not a run" in probe.text
    assert "better than the baseline by 99.5 points (p < 0.001)" in second_score.text
    assert clean.text == "nothing to blame"


def test_range_test_is_shown_as_what_it_is() -> None:
    probe = entries("reviewed")[0]
    assert (probe.label, probe.text) == ("probe", "range test of 20 steps a rate: suggests 0.0063")
    assert probe.details[0] == "6.3e-05  loss 6.80 → 5.36"


def test_commit_tells_old_and_new_value() -> None:
    (entry,) = entries("revised")
    assert entry.text == "4c54cab learning_rate 2e-05 → 0.0063"


def test_first_ended_job_tells_the_sandbox_tier_once() -> None:
    told = [entry.text for entry in entries("job_ended") if entry.label == "sandbox"]
    assert told == ["jobs run in the tier bubblewrap+cgroup"]


def test_failed_job_tells_its_kind_and_evidence() -> None:
    journal = rows()
    ended = next(row for row in journal if row["kind"] == "job_ended" and "-train-01-" in row["data"]["job_id"])
    ended["data"]["status"] |= {"state": "failed", "failure": "oom", "evidence": ["oom_kill counter 1"]}
    told = Story(GOAL, PAGE)
    told.heard(journal[: ended["seq"]])
    (entry,) = told.heard([ended])
    assert (entry.text, entry.details) == ("train of run 1 did not succeed: oom", ("oom_kill counter 1",))
    assert entry.tone is Tone.WARN


def test_sealed_split_and_ending_are_told() -> None:
    (sealed,), (ended,) = entries("confirmed"), entries("ended")
    assert sealed.text == "98.5 % (95.7 to 99.5, n = 200) · on items that no run has seen"
    assert (ended.label, ended.tone) == ("met", Tone.GOOD)


def test_refused_contract_is_told_with_its_reason() -> None:
    journal = rows()[:2]
    journal[1]["data"] |= {"goal": None, "refusal": "There is no benchmark `x`."}
    (entry,) = Story(GOAL, PAGE).heard(journal)
    assert (entry.label, entry.text, entry.tone) == ("refused", "There is no benchmark `x`.", Tone.BAD)


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_kind_of_event_is_told_or_passed_over_on_purpose(kind: EventKind) -> None:
    quiet = {
        "goal_opened", "job_launched", "planned", "head_read", "command_answered", "stopped", "resumed", "llm_spent",
        "conversation_opened", "seal_opened", "rethink",
    }  # fmt: skip
    told = {row["kind"] for row in rows()} | TOLD_ELSEWHERE
    assert (kind in quiet) != (kind in told - quiet), f"{kind} is neither told nor passed over"


TOLD_ELSEWHERE = {
    "refused", "consent_asked", "head_moved", "command", "crashed", "pull_request_closed", "pull_request_reopened",
    "goal_edited", "goal_read", "goal_adopted", "issue_closed", "budget_raised", "spending_refused", "published",
    "ablation_opened", "ablation_reported", "outputs_gone", "monitored", "job_refused", "reproduction_opened",
    "reproduction_rebuilt", "reproduction_reported", "holdout_asked", "thought", "proposal_checked", "judged",
}  # fmt: skip


def event(kind: str, data: dict[str, Any]) -> list[str]:
    """What one more event says after the recorded proposal."""
    told = story(until="proposed")
    row = {"seq": told.last_seq + 1, "kind": kind, "key": kind, "at": 0.0, "data": data}
    return [f"{entry.label}: {entry.text}" for entry in told.heard([row])]


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("refused", {"reason": "too low"}, "refused: too low"),
        ("consent_asked", {"head_sha": "a" * 40}, "waiting: a person has to agree to this spending: /postdoc run"),
        ("head_moved", {"head_sha": "abcdef0123", "by": "maya"}, "push: abcdef0 by @maya"),
        ("issue_closed", {"by": "maya"}, "closed: issue #1, by @maya"),
        (
            "monitored",
            {"job_id": "x", "step": 40, "total_steps": 200, "diagnoses": [{"cause": "The loss is no number."}]},
            "monitor: ends the job at step 40/200: The loss is no number.",
        ),
        (
            "job_refused",
            {"job_id": "x", "role": "train", "run": 2, "attempt": 1, "expects": "", "refused": True,
             "tier": "preflight", "step": 0, "diagnoses": [{"cause": "The completion repeats the prompt."}]},
            "preflight: does not start run 2: The completion repeats the prompt.",
        ),
        (
            "outputs_gone",
            {"job_id": "x", "role": "train", "run": 1},
            "gone: what training run 1 left is gone with its machine",
        ),
        ("crashed", {"error": "a bug", "reference": "a1b2"}, "error: a bug"),
        ("pull_request_closed", {"merged": True, "by": "maya"}, "merged: pull request #2, by @maya"),
        ("pull_request_reopened", {"by": "maya"}, "reopened: pull request #2, by @maya"),
        ("goal_edited", {"title": "", "body": "", "by": "lin"}, "edited: the issue's text, by @lin"),
        (
            "goal_read",
            {"text_version": 1, "offer": {"hash": "0a1b"}, "told": "offer", "comment_id": 1, "by": "lin"},
            "offered: another goal, 0a1b: /postdoc accept goal",
        ),
        (
            "command",
            {"verb": "set", "args": ["seed=1"], "author": "tomas", "author_id": 1, "comment_id": 2, "number": 2},
            "command: @tomas: /postdoc set seed=1",
        ),
        (
            "thought",
            {"thought": 1, "run": 0, "sitting": 1, "model": "m", "turns": 1, "usd": 0.02, "outcome": "away",
             "why": "nobody answers", "proposal": None},
            "thought: about the first plan: away, 1 turn, $0.02",
        ),
        (
            "judged",
            {"job_id": "x", "usd": 0.5, "answers": 40, "done": True},
            "judge: the answers are scored: 40 judgements, $0.50",
        ),
    ],
)  # fmt: skip
def test_events_of_people_are_told(kind: str, data: dict[str, Any], said: str) -> None:
    assert event(kind, data) == [said]


def test_events_that_were_heard_before_are_passed_over() -> None:
    told = Story(GOAL, PAGE)
    assert told.heard(rows())
    assert told.heard(rows()) == []
    assert told.last_seq == len(told.events) - 1


def test_activity_shows_the_running_jobs_step() -> None:
    x = story(until="run_started").experiment
    assert activity_of(x, None) is not None
    told = story(until="run_started")
    launched = next(row for row in rows() if row["kind"] == "job_launched" and row["data"]["role"] == "train")
    told.heard([launched])
    progress = {"job_id": launched["data"]["job_id"], "step": 64, "total_steps": 100, "loss": 1.3, "eta_seconds": 4.0}
    activity = activity_of(told.experiment, progress)
    assert activity is not None
    assert (activity.what, activity.step, activity.loss) == ("training run 1", 64, 1.3)
    other = activity_of(told.experiment, progress | {"job_id": "another"})
    assert other is not None
    assert other.step == 0


def test_activity_of_an_ended_goal_is_nothing() -> None:
    assert activity_of(story().experiment, None) is None


def test_numbers_are_written_for_people() -> None:
    assert [percent(0.9), percent(0.415), percent(1.0)] == ["90 %", "41.5 %", "100 %"]
    assert score_text({"value": 0.415, "ci_low": 0.349, "ci_high": 0.484, "n": 200}) == "41.5 % (34.9 to 48.4, n = 200)"
    changed: dict[str, list[Any]] = {
        "learning_rate": [2e-5, 3e-3],
        "eos_token": ["</s>", None],
        "packing": [True, False],
    }
    assert changes_text(changed) == "learning_rate 2e-05 → 0.003, eos_token </s> → unset, packing true → false"


def test_entries_of_a_kind_nobody_tells_are_none() -> None:
    told = story(until="goal_opened")
    assert entries_of(told.events[0], told.experiment, PAGE) == []


def test_reproduction_is_told_from_the_question_to_the_verdict() -> None:
    asked = {"n": 1, "run": 3, "by": "ada"}
    assert event("reproduction_opened", asked) == ["reproduce: @ada asked for run 3 to be made again"]
    digests = {("a", "a"): "the same rows as then", ("a", "b"): "other rows than then", ("", "b"): "not known"}
    for pair, said in digests.items():
        [told] = event("reproduction_rebuilt", {"reproduction": 1, "rows": list(pair)})
        assert said in told
    for report, said in (({"verdict": "bitwise", "first": ""}, "bitwise"), ({"failure": "no machine"}, "no machine")):
        reported = {"reproduction": 1, "run": 3, "report": report}
        assert event("reproduction_reported", reported) == [f"reproduce: run 3: {said}"]


def test_ablation_is_told_with_its_values() -> None:
    arms = [
        {"n": n, "value": value, "recipe": "", "recipe_hash": "", "run": None} for n, value in ((1, 1e-4), (2, 1e-3))
    ]
    opened = {"n": 1, "key": "learning_rate", "arms": arms, "head_sha": "", "digests": {}, "data_key": "", "by": "ada"}
    assert event("ablation_opened", opened) == ["ablation: @ada asked for learning_rate = 0.0001, 0.001, side by side"]
