"""Rules about reinforcement and preferences, on traces with the numbers that real runs of the tiny model showed."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

GRPO = "method: grpo\nreward_functions: ours\nlearning_rate: 1.0e-3\nbeta: 0.01\ninit_from: postdoc/tiny-qwen3\n"
DPO = "method: dpo\nlearning_rate: 5.0e-4\nbeta: 0.1\ninit_from: postdoc/tiny-qwen3\n"


def blamed(path: Any) -> list[Diagnosis]:
    return [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]


def first(path: Any) -> Diagnosis:
    found = blamed(path)
    assert found, diagnose(path).ruled_out
    return found[0]


def shadowed(build: Any, reward: list[float], truth: list[float], **columns: Any) -> list[dict[str, Any]]:
    parts = {"rewards/ours/mean": reward, "rewards/exact_match/mean": truth}
    records: list[dict[str, Any]] = build.policy_curve(reward, **parts, **columns)
    return records


def test_solved_deterministic_task_with_no_spread_no_entropy_and_a_spike_is_healthy(folder: Any, build: Any) -> None:
    """Zero entropy, zero spread and a divergence of 43 at one step: what a task that is solved looks like."""
    reward = build.trend(0.1, 1.0, 20) + [1.0] * 40
    kl = [0.4] * 50 + [43.0] + [0.6] * 9
    metrics = shadowed(build, reward, reward, kl=kl, entropy=build.trend(0.13, 0.2, 20) + [0.001] * 40,
                       frac_reward_zero_std=[0.5] * 20 + [1.0] * 40, grad_norm=[1.0] * 20 + [0.0] * 40)  # fmt: skip
    assert not diagnose(folder(GRPO, metrics=metrics)).diagnoses


def test_early_fall_of_the_entropy_while_the_reward_rises_is_healthy(folder: Any, build: Any) -> None:
    metrics = build.policy_curve(build.trend(0.1, 0.6), entropy=[2.5 * 0.8**i + 0.06 for i in range(60)])
    assert diagnose(folder(GRPO, metrics=metrics)).healthy


def test_constant_reward_leaves_no_spread(folder: Any, build: Any) -> None:
    metrics = shadowed(build, [1.0] * 60, build.trend(0.1, 0.1), frac_reward_zero_std=1.0, grad_norm=0.0, kl=0.0)
    found = first(folder(GRPO, metrics=metrics))
    assert (found.symptom, found.key, found.certain_at) == (Symptom.ZERO_STD, "reward_functions", 20)


def test_cold_sampling_leaves_no_spread_and_blames_the_temperature(folder: Any, build: Any) -> None:
    metrics = build.policy_curve([0.1] * 60, frac_reward_zero_std=0.99, entropy=0.001, kl=0.0)
    found = first(folder(GRPO + "temperature: 0.01\n", metrics=metrics))
    assert (found.symptom, found.key, found.suggested) == (Symptom.ZERO_STD, "temperature", 1.0)


def test_reward_that_nothing_earns(folder: Any, build: Any) -> None:
    metrics = build.policy_curve([0.0] * 40, reward_std=0.0, frac_reward_zero_std=1.0, grad_norm=0.0, kl=0.0)
    (found,) = blamed(folder(GRPO, metrics=metrics))
    assert (found.symptom, found.severity, found.key) == (Symptom.REWARD_ZERO, Severity.FATAL, "reward_functions")


def test_reward_earned_a_few_times_early_is_not_zero(folder: Any, build: Any) -> None:
    metrics = build.policy_curve([0.0] * 12 + build.trend(0.02, 0.7, 60, noise=0.0))
    assert diagnose(folder(GRPO, metrics=metrics)).healthy


def test_negated_reward_rises_while_the_truth_falls(folder: Any, build: Any) -> None:
    truth = [max(0.0, v) for v in build.trend(0.14, -0.1, 20)] + [0.0] * 40
    found = first(folder(GRPO, metrics=shadowed(build, [-v for v in truth], truth, frac_reward_zero_std=0.9)))
    assert (found.symptom, found.severity, found.key) == (Symptom.REWARD_INVERTED, Severity.FATAL, "reward_functions")


def test_negative_weight_is_blamed_for_an_inverted_reward(folder: Any, build: Any) -> None:
    check = {"ours": {"reference": 1.0, "wrong": 0.0, "errors": 0}}
    found = first(folder(GRPO + "reward_weights: [-1.0]\n", audit={"reward_check": check},
                         metrics=shadowed(build, [-0.1] * 30, [0.1] * 30)))  # fmt: skip
    assert (found.symptom, found.key, found.line) == (Symptom.REWARD_INVERTED, "reward_weights", 6)


def test_reward_that_rises_without_the_truth_is_hacked(folder: Any, build: Any) -> None:
    found = first(folder(GRPO, metrics=shadowed(build, build.trend(0.3, 1.0), build.trend(0.1, 0.02, noise=0.01))))
    assert (found.symptom, found.key) == (Symptom.REWARD_HACK, "reward_functions")
    assert {e.key for e in found.evidence} >= {"reward", "rewards/exact_match/mean"}


def test_reward_that_outruns_a_truth_that_follows_is_healthy(folder: Any, build: Any) -> None:
    metrics = shadowed(build, build.trend(0.3, 1.0), build.trend(0.1, 0.6))
    assert diagnose(folder(GRPO, metrics=metrics)).healthy


def test_one_component_that_dominates_is_no_hack_by_itself(folder: Any, build: Any) -> None:
    rise = build.trend(0.2, 0.9)
    metrics = build.policy_curve(rise, **{"rewards/form/mean": rise, "rewards/exact_match/mean": rise})
    assert diagnose(folder("method: grpo\nreward_functions: form, exact_match\n", metrics=metrics)).healthy


def test_reward_for_length_is_a_length_hack(folder: Any, build: Any) -> None:
    length = build.trend(14, 64, noise=0.5)
    lengths = {"completions/mean_length": length, "completions/clipped_ratio": build.trend(0.1, 1.0)}
    metrics = shadowed(build, [v / 64 for v in length], build.trend(0.1, 0.0, noise=0.005), **lengths)
    (found,) = blamed(folder(GRPO, metrics=metrics))
    assert (found.symptom, found.key) == (Symptom.LENGTH_HACK, "reward_functions")


def test_reward_for_length_is_not_inverted_because_the_few_right_answers_go(folder: Any, build: Any) -> None:
    length = build.trend(12, 19, noise=0.4)
    lengths = {"completions/mean_length": length, "completions/clipped_ratio": build.trend(0.1, 1.0)}
    metrics = shadowed(build, [v / 20 for v in length], [max(0.0, 0.05 * (20 - v) / 8) for v in length], **lengths)
    found = first(folder(GRPO, metrics=metrics))
    assert (found.symptom, found.key) == (Symptom.LENGTH_HACK, "reward_functions")


def test_longer_answers_that_are_right_are_healthy(folder: Any, build: Any) -> None:
    rise = build.trend(0.1, 0.9)
    metrics = shadowed(build, rise, rise, **{"completions/mean_length": build.trend(40, 200, noise=1)})
    assert diagnose(folder(GRPO, metrics=metrics)).healthy


def test_reward_that_peaks_and_is_lost_is_a_runaway_policy(folder: Any, build: Any) -> None:
    reward = build.trend(0.1, 0.7, 20) + build.trend(0.7, 0.0, 10) + [0.0] * 30
    metrics = build.policy_curve(reward, kl=build.trend(0.0, 7.0, 60, noise=0.1), entropy=[0.1] * 20 + [0.001] * 40)
    found = first(folder(GRPO.replace("1.0e-3", "5.0e-2"), metrics=metrics))
    assert (found.symptom, found.key, found.severity) == (Symptom.KL_BLOWUP, "learning_rate", Severity.FATAL)


def test_divergence_from_the_reference_at_step_one_names_the_reference(folder: Any, build: Any) -> None:
    metrics = build.policy_curve(build.trend(0.1, 0.5, 40), kl=6.0)
    found = first(folder(GRPO, metrics=metrics))
    assert (found.symptom, found.key) == (Symptom.KL_BLOWUP, "init_from")


def test_policy_that_does_not_move_wants_a_higher_rate(folder: Any, build: Any) -> None:
    metrics = build.policy_curve(build.trend(0.1, 0.1, 40), kl=1e-8)
    found = first(folder(GRPO.replace("1.0e-3", "1.0e-7"), metrics=metrics))
    assert (found.symptom, found.key) == (Symptom.PLATEAU, "learning_rate") and found.suggested == 1.7e-4


def test_walk_about_the_start_at_a_rate_below_the_usual_ones_is_a_plateau(folder: Any, build: Any) -> None:
    low = GRPO.replace("1.0e-3", "1.0e-6")
    flat = build.policy_curve(build.trend(0.1, 0.1, 60), kl=6e-4)
    found = first(folder(low, metrics=flat, evaluation=build.evaluation(0.1), goal={"target": 0.8}))
    assert (found.symptom, found.key) == (Symptom.PLATEAU, "learning_rate") and found.suggested > 1e-5
    for recipe, kl in ((low, 0.2), (low.replace("1.0e-6", "1.0e-3"), 6e-4)):
        moved = build.policy_curve(build.trend(0.1, 0.1, 60), kl=kl)
        path = folder(recipe, metrics=moved, evaluation=build.evaluation(0.1), goal={"target": 0.8})
        assert Symptom.PLATEAU not in {each.symptom for each in diagnose(path).diagnoses}


def test_one_answer_to_every_prompt_is_a_collapse_though_the_reward_is_high(folder: Any, build: Any) -> None:
    prompts, answers = build.words(40), build.words(40, 7)
    said = [{"step": 60, "prompt": p, "completion": "aeiou", "reference": a, "rewards": {"ours": 1.0}, "finish": "stop"}
            for p, a in zip(prompts, answers, strict=True)]  # fmt: skip
    metrics = build.policy_curve(build.trend(0.3, 1.0), entropy=build.trend(2.6, 0.05))
    found = first(folder(GRPO, metrics=metrics, completions=said))
    assert (found.symptom, found.key, found.suggested) == (Symptom.ENTROPY_COLLAPSE, "epsilon_high", 0.28)


@pytest.mark.parametrize(
    ("longest", "symptom", "key"),
    [(20, Symptom.CLIPPED_COMPLETIONS, "max_completion_length"), (4, Symptom.MISSING_EOS, "eos_token")],
)
def test_answers_that_run_into_the_cap(folder: Any, build: Any, longest: int, symptom: Symptom, key: str) -> None:
    metrics = build.policy_curve([0.0] * 40, reward_std=0.0, frac_reward_zero_std=1.0,
                                 **{"completions/clipped_ratio": 1.0, "completions/mean_length": 16.0})  # fmt: skip
    audit = {"answer_token_lengths": {"p50": 4, "p95": longest, "max": longest}}
    found = first(folder(GRPO + "max_completion_length: 16\n", metrics=metrics, audit=audit))
    assert (found.symptom, found.key) == (symptom, key)


def test_sampler_and_trainer_that_disagree(folder: Any, build: Any) -> None:
    metrics = build.policy_curve(build.trend(0.1, 0.3), **{"sampling/importance_sampling_ratio/mean": 0.2,
                                                           "sampling/sampling_logp_difference/mean": 0.6})  # fmt: skip
    found = first(folder(GRPO + "use_vllm: true\n", metrics=metrics))
    assert found.symptom is Symptom.ROLLOUT_MISMATCH
    quiet = build.policy_curve(build.trend(0.1, 0.3), **{"sampling/importance_sampling_ratio/mean": 0.98,
                                                         "sampling/sampling_logp_difference/mean": 0.03})  # fmt: skip
    assert diagnose(folder(GRPO + "use_vllm: true\n", metrics=quiet)).healthy


def preferences(build: Any, **columns: Any) -> list[dict[str, Any]]:
    """Records of a DPO run; without columns those of a healthy one of the tiny model."""
    n = 60
    usual: dict[str, Any] = {
        "loss": build.decay(0.9, 0.012, n), "grad_norm": 1.0, "entropy": 0.25,
        "rewards/accuracies": [0.0, 0.5] + [1.0] * (n - 2), "rewards/margins": build.trend(0.0, 9.2, n, noise=0.1),
        "rewards/chosen": build.trend(0.0, 0.3, n), "rewards/rejected": build.trend(0.0, -8.9, n),
        "logps/chosen": build.decay(-3.6, -0.01, n), "logps/rejected": build.trend(-3.3, -92, n),
    }  # fmt: skip
    columns = usual | columns
    return [{"step": i + 1} | {k: c if isinstance(c, float) else c[i] for k, c in columns.items()} for i in range(n)]


def test_healthy_pairs_with_large_margins_and_negative_rewards_are_silent(folder: Any, build: Any) -> None:
    below = preferences(build, **{"rewards/chosen": build.trend(0.0, -0.8)})
    assert diagnose(folder(DPO, metrics=below, evaluation=build.evaluation(0.9), goal={"target": 0.8})).healthy
    assert diagnose(folder(DPO, metrics=preferences(build))).healthy


def test_both_answers_made_unlikely_with_a_bad_score_is_displacement(folder: Any, build: Any) -> None:
    metrics = preferences(build, **{"logps/chosen": build.trend(-0.3, -8.0)})
    path = folder(
        DPO.replace("5.0e-4", "1.5e-3"), metrics=metrics, evaluation=build.evaluation(0.25), goal={"target": 0.8}
    )
    found = first(path)
    assert (found.symptom, found.key, found.suggested) == (Symptom.DPO_DISPLACEMENT, "loss_type", "sigmoid,sft")
    held_up = DPO + "loss_type: sigmoid,sft\nloss_weights: 1.0,0.2\n"
    for rate, change in (("1.5e-3", ("beta", 0.3)), ("4.0e-3", ("learning_rate", 0.00041))):
        again = folder(
            held_up.replace("5.0e-4", rate), metrics=metrics, evaluation=build.evaluation(0.25), goal={"target": 0.8}
        )
        assert (first(again).key, first(again).suggested) == change


def test_policy_far_from_its_reference_at_a_usual_rate_lacks_imitation(folder: Any, build: Any) -> None:
    metrics = preferences(build, **{"rewards/margins": build.trend(0.0, 60.0), "logps/chosen": build.trend(-0.3, -0.8)})
    short = {"metrics": metrics, "evaluation": build.evaluation(0.3), "goal": {"target": 0.8}}
    (alone,) = blamed(folder(DPO, **short))
    assert (alone.symptom, alone.key, alone.suggested) == (Symptom.DPO_OVERSHOOT, "loss_type", "sigmoid,sft")
    (tiny,) = blamed(folder(DPO + "beta: 0.01\n", **short))
    assert (tiny.key, tiny.suggested) == ("beta", 0.1)
    (held_up,) = blamed(folder(DPO + "loss_type: sigmoid,sft\n", **short))
    assert (held_up.key, held_up.suggested) == ("learning_rate", 5e-5)


def test_margins_far_beyond_what_separates_the_pairs_with_a_bad_score(folder: Any, build: Any) -> None:
    metrics = preferences(
        build, **{"rewards/margins": build.trend(0.0, 60.0), "logps/chosen": build.trend(-0.3, -30.0)}
    )
    path = folder(
        DPO.replace("5.0e-4", "5.0e-2"), metrics=metrics, evaluation=build.evaluation(0.0), goal={"target": 0.8}
    )
    (found,) = blamed(path)
    assert (found.symptom, found.key) == (Symptom.DPO_OVERSHOOT, "learning_rate")


def test_held_out_pairs_ranked_the_other_way_are_flipped(folder: Any, build: Any) -> None:
    held = [{"step": 6 * i, "eval_loss": 2.0, "eval_rewards/accuracies": 0.1} for i in range(1, 11)]
    found = first(folder(DPO, metrics=preferences(build) + held))
    assert found.symptom is Symptom.DPO_FLIPPED and found.severity is Severity.FATAL


def test_chosen_answers_that_look_like_no_reference_are_flipped_before_training(folder: Any, build: Any) -> None:
    asked = [(f"spell {w}", "-".join(w)) for w in build.words(80)]
    known = build.pairs((f"spell {w}", "-".join(w)) for w in build.words(60, 9))
    pairs = [{"prompt": p, "chosen": p, "rejected": a} for p, a in asked]
    found = first(folder(DPO + "data_sources: x\n", train=pairs, eval=known))
    assert (found.symptom, found.key) == (Symptom.DPO_FLIPPED, "data_sources")
    right = [{"prompt": p, "chosen": a, "rejected": p} for p, a in asked]
    assert diagnose(folder(DPO + "data_sources: x\n", train=right, eval=known)).healthy


def test_cap_that_references_do_not_fit_under_is_named_before_training(folder: Any, build: Any) -> None:
    audit = {"rows": 1500, "max_completion_length": 2, "truncated_rows": 1500,
             "answer_token_lengths": {"p50": 3, "p95": 3, "max": 3}}  # fmt: skip
    (found,) = blamed(folder(GRPO + "max_completion_length: 2\n", audit=audit))
    assert (found.symptom, found.key, found.suggested, found.certain_at) == (
        Symptom.CLIPPED_COMPLETIONS,
        "max_completion_length",
        8,
        None,
    )
