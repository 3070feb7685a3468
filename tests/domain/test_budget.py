from __future__ import annotations

import json

import pytest

from bot.domain.budget import NOTHING, Envelope, Spend, exceeded, remaining, used_up
from bot.domain.goal import Budget

BUDGET = Budget(usd=20, gpu_hours=4, runs=4, wall_hours=24)
ENVELOPE = Envelope("abc", BUDGET, frozenset({"learning_rate", "max_steps"}), expires_at=1000.0)


def test_remaining_takes_off_what_is_spent_and_reserved():
    left = remaining(BUDGET, Spend(usd=5, gpu_hours=1, runs=1, wall_hours=2), Spend(usd=3, gpu_hours=5, runs=1))
    assert left == Spend(usd=12, gpu_hours=0, runs=2, wall_hours=22)


@pytest.mark.parametrize(
    ("spend", "sentence"),
    [
        (Spend(usd=20.5), "20.50 USD would pass the ceiling of 20.00 USD."),
        (Spend(gpu_hours=5), "5 h of job time would pass the ceiling of 4 h of job time."),
        (Spend(runs=5), "5 training runs would pass the ceiling of 4 training runs."),
        (Spend(wall_hours=25), "25 h since consent would pass the ceiling of 24 h since consent."),
    ],
)
def test_exceeded_names_the_ceiling(spend, sentence):
    assert exceeded(BUDGET, spend) == sentence


def test_exceeded_counts_what_is_reserved_and_allows_the_ceiling_itself():
    assert exceeded(BUDGET, Spend(usd=19), Spend(usd=1)) is None
    assert exceeded(BUDGET, Spend(usd=19), Spend(usd=1.01)) is not None
    assert exceeded(BUDGET, Spend(gpu_hours=sum([0.1] * 40))) is None


def test_used_up_leaves_no_room_at_the_ceiling():
    assert used_up(BUDGET, NOTHING) is None
    assert used_up(BUDGET, Spend(runs=4)) == "The ceiling of 4 training runs is used up (4 training runs)."
    assert "USD" in used_up(BUDGET, Spend(usd=20))


def test_a_budget_without_money_allows_machines_without_a_price():
    free = Budget(usd=0)
    assert used_up(free, Spend(runs=1)) is None
    assert exceeded(free, Spend(usd=0.01)) == "0.01 USD would pass the ceiling of 0.00 USD."


def test_short_times_are_said_in_minutes_and_seconds():
    assert "36 s of job time" in exceeded(Budget(gpu_hours=0), Spend(gpu_hours=0.01))
    assert "30 min of job time" in exceeded(Budget(gpu_hours=0), Spend(gpu_hours=0.5))


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_spend_refuses_amounts_that_are_none(amount):
    with pytest.raises(ValueError, match="usd"):
        Spend(usd=amount)


def test_envelope_covers_its_keys_within_its_ceilings():
    assert ENVELOPE.covers(["learning_rate"], Spend(usd=2, runs=1), spent=Spend(usd=10), goal_hash="abc", now=5) is None


@pytest.mark.parametrize(
    ("keys", "estimate", "others", "words"),
    [
        (["lora_r", "learning_rate"], NOTHING, {}, "`lora_r`; agreed were changes of `learning_rate`, `max_steps`"),
        ([], Spend(usd=3), {"spent": Spend(usd=18)}, "21.00 USD would pass"),
        ([], NOTHING, {"goal_hash": "def"}, "goal has changed"),
        ([], NOTHING, {"now": 1000.0 + 7200}, "expired 2 h ago"),
    ],
)
def test_envelope_says_why_it_does_not_cover(keys, estimate, others, words):
    assert words in ENVELOPE.covers(keys, estimate, **others)


def test_envelope_star_covers_every_key():
    assert Envelope("abc", BUDGET, frozenset({"*"})).covers(["anything"], NOTHING) is None
    assert "agreed were changes of no key" in Envelope("abc", BUDGET).covers(["anything"], NOTHING)


def test_envelope_extended_raises_ceilings_only():
    more = ENVELOPE.extended(Spend(usd=5, runs=1))
    assert (more.ceilings.usd, more.ceilings.runs, more.ceilings.gpu_hours) == (25, 5, 4)
    assert (more.goal_hash, more.keys, more.expires_at) == ("abc", ENVELOPE.keys, 1000.0)


def test_envelope_and_spend_survive_json():
    assert Envelope.from_dict(json.loads(json.dumps(ENVELOPE.as_dict()))) == ENVELOPE
    spend = Spend(usd=1.5, runs=2)
    assert Spend.from_dict(json.loads(json.dumps(spend.as_dict()))) == spend
