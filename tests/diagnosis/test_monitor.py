"""The monitor ends a run that cannot come back, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.diagnosis.monitor import Judgement, Tier, judged, lasting_signals
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


def test_plateau_and_overfit_are_advice() -> None:
    for name in ("plateau-rate-2e-6", "overfit-epochs"):
        assert first_end(TRACES / name) is None


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
