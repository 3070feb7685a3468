"""The rule about two engines: the one that samples answers, and the one that learns from them."""

from __future__ import annotations

from bot.diagnosis.curves import Series, observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rewarding import WINDOW
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Severity, Symptom


def rollout_mismatch(observations: Observations) -> Answer:
    """The engine that samples and the model that is trained disagree about the same tokens."""
    apart = _first_logged(observations, "rollout_probs_diff_mean", "training/rollout_probs_diff_mean")
    logs = observed(observations, "sampling/sampling_logp_difference/mean")
    ratio = observed(observations, "sampling/importance_sampling_ratio/mean")
    effective = _first_logged(observations, "rollout_is_eff_sample_size", "rollout_corr/rollout_is_eff_sample_size")
    judged = [
        # verl: normally below .005, suspect from .01; ratios outside .5 to 2; effective sample size below .3.
        (apart, apart is not None and apart.tail(WINDOW) > 0.01, "difference of probabilities"),
        (ratio, len(ratio) > 0 and not 0.5 <= ratio.tail(WINDOW) <= 2.0, "importance ratio"),
        (effective, effective is not None and effective.tail(WINDOW) < 0.3, "effective sample size"),
        # TRL logs log-probabilities; .01 of a probability of one half is .02 nats, and bfloat16 alone makes a few
        # hundredths.†
        (logs, len(logs) > 0 and logs.tail(WINDOW) > 0.2, "difference of log-probabilities"),
    ]
    logged = [(series, bad, name) for series, bad, name in judged if series is not None and len(series) >= WINDOW]
    bad = [(series, name) for series, wrong, name in logged if wrong]
    if not bad:
        if not logged:
            return None
        return RuledOut(Symptom.ROLLOUT_MISMATCH, f"{logged[0][2]} {shown(logged[0][0].tail(WINDOW))} at the end")
    corrected = observations.recipe.get("vllm_importance_sampling_correction", True) is not False
    key = "vllm_mode" if corrected and "vllm_mode" in observations.recipe else "vllm_importance_sampling_correction"
    return finding(
        observations,
        Symptom.ROLLOUT_MISMATCH,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.85 if len(bad) > 1 else 0.7,
        evidence=[
            *(seen(series.key, series.last_step, series.tail(WINDOW)) for series, _ in bad),
            seen("steps", None, len(bad[0][0])),
        ],
        cause=f"What samples and what is trained disagree: {bad[0][1]} {shown(bad[0][0].tail(WINDOW))} at step "
        f"{bad[0][0].last_step}. The gradient is that of another policy.",
        key=key,
        suggested=True if key == "vllm_importance_sampling_correction" and not corrected else None,
        harm=0.6,
        runner_up="weights that were not sent to the sampling engine after each step",
        refuted_by="the same tokens scored alike by both engines at step 1",
    )


def _first_logged(observations: Observations, *keys: str) -> Series | None:
    for key in keys:
        series = observed(observations, key)
        if len(series):
            return series
    return None


RULES = (
    Rule(
        Symptom.ROLLOUT_MISMATCH,
        rollout_mismatch,
        "verl on rollout correction: .01, .5 to 2, .3; .2 nats †",
        online=True,
    ),
)
