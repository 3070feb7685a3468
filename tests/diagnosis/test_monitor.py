"""The monitor ends a run that cannot come back, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.diagnosis.monitor import Judgement, Tier, judged
from bot.diagnosis.signals import idle_signals, in_order, lasting_signals
from bot.domain.diagnosis import Diagnosis, Symptom

TRACES = Path(__file__).parent / "traces"
RECIPE = "learning_rate: 1.0e-03\nmax_length: 64\n"


def doomed(recipe: str, so_far: list[dict[str, object]]) -> Diagnosis | None:
    """What no further step can take back, where the monitor says so."""
    found = judged(recipe, so_far, advise=False)
    return found.diagnoses[0] if found is not None and found.tier.ends else None


def rows(*values: tuple[object, object]) -> list[dict[str, object]]:
    return [{"step": 10 * n, "loss": loss, "grad_norm": norm} for n, (loss, norm) in enumerate(values, start=1)]


@pytest.mark.parametrize(
    "lost", [("NaN", "NaN"), (None, None), (0.0, "NaN"), ("NaN", "Infinity")], ids=["text", "null", "hidden", "inf"]
)
def test_weights_that_are_no_numbers_any_more_end_the_run_on_a_line(lost: tuple[object, object]) -> None:
    found = doomed(RECIPE, rows((2.0, 1.0), (1.9, 1.1), lost, lost, lost))
    assert found is not None
    assert (found.symptom, found.line) == (Symptom.NAN_INF, 1)


def test_two_skipped_steps_of_fp16_and_a_loss_that_jumps_go_on() -> None:
    assert doomed(RECIPE, rows((2.0, "Infinity"), (2.0, "Infinity"), (1.8, 1.0))) is None
    assert doomed(RECIPE, rows((2.0, 1.0), (90.0, 300.0), (80.0, 200.0), (70.0, 100.0))) is None
    assert doomed(RECIPE, rows(("NaN", "NaN"), ("NaN", "NaN"))) is None
    assert doomed(RECIPE, []) is None


def test_no_prefix_of_a_healthy_trace_is_ended() -> None:
    folders = sorted(TRACES.glob("healthy*"))
    assert len(folders) >= 5
    for folder in folders:
        recipe = (folder / "recipe.yaml").read_text()
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for end in range(1, len(history) + 1, 7):
            assert doomed(recipe, history[:end]) is None, folder.name


def test_every_trace_with_lasting_nans_is_ended_before_its_end() -> None:
    ended = {}
    for folder in sorted(TRACES.glob("nan_inf*")):
        recipe = (folder / "recipe.yaml").read_text()
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found = (end for end in range(1, len(history) + 1) if doomed(recipe, history[:end]) is not None)
        ended[folder.name] = next(found, None) or len(history)
        assert ended[folder.name] < len(history), ended


def history(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def first_end(folder: Path) -> Judgement | None:
    """How the monitor ends this run, asked after every record."""
    recipe, rows = (folder / "recipe.yaml").read_text(), history(folder)
    audit = json.loads((folder / "data_audit.json").read_text()) if (folder / "data_audit.json").is_file() else {}
    looks = (judged(recipe, rows[:end], audit=audit, advise=False) for end in range(len(rows) + 1))
    return next((found for found in looks if found is not None and found.tier.ends), None)


def test_no_healthy_run_is_ended_by_any_tier() -> None:
    folders = sorted(TRACES.glob("healthy*"))
    assert len(folders) >= 5
    assert [folder.name for folder in folders if first_end(folder) is not None] == []


def test_two_signs_that_last_end_a_diverged_run_early() -> None:
    for name in ("divergence-collapse", "divergence-jump"):
        found = first_end(TRACES / name)
        assert found is not None
        assert (found.tier, found.diagnoses[0].symptom) == (Tier.SOFT, Symptom.DIVERGENCE)
        assert found.step <= 0.25 * len(history(TRACES / name))
        assert found.signals
        assert found.worth_saving


def test_data_that_teaches_nothing_is_refused_before_the_first_step() -> None:
    found = first_end(TRACES / "truncation-json")
    assert found is not None
    assert (found.tier, found.step, found.worth_saving) == (Tier.PREFLIGHT, 0, False)


def test_plateau_and_overfit_that_may_still_end_well_are_advice() -> None:
    for name in ("plateau-rate-2e-5", "plateau-too-short", "plateau-cosine", "overfit-epochs"):
        assert first_end(TRACES / name) is None


def test_rate_whose_steps_add_up_to_nothing_ends_the_run_that_stands_still() -> None:
    found = first_end(TRACES / "plateau-rate-2e-6")
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom, found.diagnoses[0].key) == (
        Tier.SOFT, Symptom.PLATEAU, "learning_rate",
    )  # fmt: skip
    assert found.step <= 0.3 * len(history(TRACES / "plateau-rate-2e-6"))


TINY = "init_from: postdoc/tiny-qwen3\nlearning_rate: 3.0e-3\nlr_scheduler_type: linear\nmax_steps: 200\n"
PLAN = {"max_steps": 200, "parameters": 330_000, "warm_up_steps": 5}


def supervised(steps: int, **columns: object) -> list[dict[str, object]]:
    """Records of a run whose columns are values, or functions of the step."""
    common = {"loss": 1.6, "grad_norm": 1.0, "learning_rate": 3e-3, "entropy": 1.6, "mean_token_accuracy": 0.5}
    return [
        {"step": n, "epoch": n / 10}
        | {key: value(n) if callable(value) else value for key, value in (common | columns).items()}
        for n in range(1, steps + 1)
    ]


def probe(step: int, right: float) -> dict[str, object]:
    return {"step": step, "probe/termination_rate": 1.0, "probe/exact_match": right}


def held_out(step: int, loss: float) -> dict[str, object]:
    return {"step": step, "eval_loss": loss}


def test_schedule_that_let_go_ends_the_run_unless_its_answers_are_right() -> None:
    def rate(n: int) -> float:
        return max(0.0, 3e-3 * (1 - n / 20))

    rows = [*supervised(40, learning_rate=rate), held_out(40, 1.7), probe(40, 0.0)]
    found = judged(TINY, rows, setup=PLAN, advise=False)
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom, found.diagnoses[0].key) == (
        Tier.SOFT, Symptom.PLATEAU, "lr_scheduler_type",
    )  # fmt: skip
    goes_on = [*supervised(40), held_out(40, 1.7), probe(40, 0.0)]
    may_restart = [*rows[:25], probe(25, 0.0)]
    for others in ([*rows[:-1], probe(40, 0.9)], may_restart, goes_on):
        again = judged(TINY, others, setup=PLAN, advise=False)
        assert again is None or not again.tier.ends


def test_constant_reward_ends_the_run_unless_what_is_wanted_is_there() -> None:
    def rows(right: float, norm: float = 0.0) -> list[dict[str, object]]:
        row: dict[str, object] = {
               "loss": 0.0, "grad_norm": norm, "reward": 1.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0,
               "rewards/ours/mean": 1.0, "rewards/exact_match/mean": right, "entropy": 0.2, "kl": 0.0}  # fmt: skip
        return [row | {"step": n} for n in range(1, 21)]

    recipe = "method: grpo\nreward_functions: ours\nlearning_rate: 1.0e-3\n"
    found = judged(recipe, rows(0.1), advise=False)
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom, found.diagnoses[0].key) == (
        Tier.HARD, Symptom.ZERO_STD, "reward_functions",
    )  # fmt: skip
    for others in (rows(0.1)[:-1], rows(0.9), rows(0.1, norm=0.1)):
        again = judged(recipe, others, advise=False)
        assert again is None or not again.tier.ends


def test_batches_without_labels_end_the_run_and_solved_ones_do_not() -> None:
    audit = {"rows": 1000, "zero_label_rows": 0, "truncated_rows": 0}
    nothing = supervised(8, loss=0.0, grad_norm=0.0, entropy=0.0, mean_token_accuracy=0.0)
    found = judged(TINY, nothing, setup=PLAN, audit=audit, advise=False)
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom, found.diagnoses[0].file) == (
        Tier.HARD, Symptom.ALL_LABELS_MASKED, "train.py",
    )  # fmt: skip
    solved = supervised(8, loss=0.0, grad_norm=0.0, entropy=0.0, mean_token_accuracy=1.0)
    assert judged(TINY, solved, setup=PLAN, audit=audit, advise=False) is None


def test_rows_known_by_heart_end_the_run_where_held_out_ones_get_worse() -> None:
    def run(values: tuple[float, ...], right: float) -> list[dict[str, object]]:
        evals = [held_out(12 * n, value) for n, value in enumerate(values, start=1)]
        rows = supervised(70, loss=lambda n: 5 * 0.8**n, mean_token_accuracy=lambda n: 1 - 0.8**n)
        return sorted([*rows, *evals, probe(10, 0.0), probe(60, right)], key=lambda row: float(str(row["step"])))

    worse = (2.0, 2.2, 2.5, 2.6, 2.8)
    found = judged(TINY, run(worse, 0.1), setup=PLAN, advise=False)
    assert found is not None and (found.tier, found.diagnoses[0].symptom) == (Tier.SOFT, Symptom.OVERFIT)
    for others in (run(worse, 0.9), run((2.0, 1.5, 1.0, 0.7, 0.5), 0.1)):
        again = judged(TINY, others, setup=PLAN, advise=False)
        assert again is None or not again.tier.ends


def test_impossible_rate_ends_the_run_that_gets_nothing_right() -> None:
    recipe = TINY.replace("3.0e-3", "5.0e-2")
    steps = supervised(70, loss=lambda n: 5 / n**0.5 + 0.5)
    rows = [*steps[:10], probe(10, 0.0), *steps[10:50], probe(50, 0.0), *steps[50:]]
    found = judged(recipe, rows, setup=PLAN, advise=False)
    assert found is not None and (found.tier, found.diagnoses[0].symptom) == (Tier.SOFT, Symptom.DIVERGENCE)
    for others in ([*rows[:-1], probe(70, 0.1)], rows[:30]):
        again = judged(recipe, others, setup=PLAN, advise=False)
        assert again is None or not again.tier.ends
    assert judged(TINY, rows, setup=PLAN, advise=False) is None


def test_weights_that_do_not_change_end_the_run_that_stands_still() -> None:
    frozen = PLAN | {"frozen_after_3_steps": True, "trainable_parameters": 330_000}
    found = judged(TINY, supervised(30), setup=frozen, advise=False)
    assert found is not None and (found.tier, found.diagnoses[0].symptom) == (Tier.SOFT, Symptom.FROZEN)
    falls = judged(TINY, supervised(30, loss=lambda n: 5 / n), setup=frozen, advise=False)
    assert falls is None or not falls.tier.ends


def rewards(*values: tuple[float, float]) -> list[dict[str, object]]:
    return [
        {"step": n, "loss": 0.0, "grad_norm": 0.0, "reward": reward, "frac_reward_zero_std": zero}
        for n, (reward, zero) in enumerate(values, start=1)
    ]


def test_reward_without_spread_is_dead_at_zero_and_solved_at_its_top() -> None:
    dead = judged(RECIPE, rewards(*[(0.0, 1.0)] * 20), advise=False)
    assert dead is not None
    assert (dead.tier, dead.diagnoses[0].symptom) == (Tier.HARD, Symptom.REWARD_ZERO)
    for rows in (rewards(*[(1.0, 1.0)] * 30), rewards(*[(0.0, 1.0)] * 19), rewards(*[(0.0, 0.9)] * 40)):
        found = judged(RECIPE, rows, advise=False)
        assert found is None or not found.tier.ends


def test_model_without_a_trainable_weight_ends_at_once() -> None:
    found = judged("lora_target_modules: q_proj\n", [], setup={"trainable_parameters": 0}, advise=False)
    assert found is not None
    assert (found.tier, found.diagnoses[0].key, found.diagnoses[0].suggested) == (
        Tier.HARD, "lora_target_modules", "all-linear",
    )  # fmt: skip


def test_one_signal_is_not_enough_and_none_counts_while_it_warms_up() -> None:
    rows = [{"step": n, "loss": 2.0 if n < 30 else 9.0, "grad_norm": 1.0, "learning_rate": 1e-3} for n in range(1, 60)]
    found = judged(RECIPE, rows, setup={"max_steps": 1000})
    assert found is None or not found.tier.ends
    both = [row | {"grad_norm": 1.0 if row["step"] < 30 else 500.0} for row in rows]
    assert len(lasting_signals(both)) == 2
    early = judged(RECIPE, both, setup={"max_steps": 1000, "warm_up_steps": 100})
    assert early is None or not early.tier.ends


# --- streams as they come: resumed, told twice, in other types


def endings(rows: list[dict[str, object]]) -> list[Judgement]:
    """How the monitor ends a run whose records arrive one by one."""
    looks = (judged(TINY, rows[:end], setup=PLAN, advise=False) for end in range(len(rows) + 1))
    return [found for found in looks if found is not None and found.tier.ends]


def test_resumed_run_says_nothing_of_what_the_resume_has_undone() -> None:
    """The same evaluation twice, since the run went through the same step twice, is no sign of weights that stand."""
    logged: list[dict[str, object]] = []
    for row in supervised(60):
        logged.append(row)
        if row["step"] in (20, 40):
            logged.append({"step": row["step"], "eval_loss": 60 / int(str(row["step"]))})
    first, again = logged[:45], logged[22:]
    told = in_order([*first, *again])
    assert told == logged
    assert "eval_loss" in {signal.key for signal in idle_signals([*first, *again[:25]])}
    assert "eval_loss" not in {signal.key for signal in idle_signals(in_order([*first, *again[:25]]))}


def test_bad_steps_that_are_told_again_and_again_have_lasted_no_longer() -> None:
    """Two signs have to stand for ten steps, not for ten lines."""
    bad = [
        {**row, "loss": 20.0, "grad_norm": 900.0} if 30 <= int(str(row["step"])) < 34 else row for row in supervised(33)
    ]
    assert endings([row for row in bad for _ in range(3)]) == []


def test_step_that_is_told_twice_counts_once_though_an_evaluation_stands_between() -> None:
    rows: list[dict[str, object]] = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 2.1}, {"step": 1, "loss": 1.9}]
    assert in_order(rows) == [{"step": 1, "eval_loss": 2.1}, {"step": 1, "loss": 1.9}]
    assert in_order([{"loss": 2.0}, {"loss": 1.0}, {"step": "none", "loss": 3.0}]) == [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
    ]


def test_numbers_as_words_are_numbers_and_no_size_is_too_large() -> None:
    words = [{key: value if key == "step" else str(value) for key, value in row.items()} for row in supervised(60)]
    assert endings(words) == []
    huge = [{**row, "reward": 10**400, "kl": 1e308, "rewards/exact_match/mean": -1e308} for row in supervised(60)]
    assert endings(huge) == endings(huge)


def test_run_is_ended_whether_advice_is_asked_for_or_not() -> None:
    rows: list[dict[str, object]] = [{"step": n, "eval_loss": "NaN"} for n in (1, 2, 3)]
    tiers = [found.tier if (found := judged("seed: 1\n", rows, advise=advise)) else None for advise in (True, False)]
    assert tiers == [Tier.PREFLIGHT, Tier.PREFLIGHT]
