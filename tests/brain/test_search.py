"""What is tried next: repairs by diagnosis, drafts, search, stages, and when it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from bot.brain.playbook import Kind, remedies_for
from bot.brain.search import Search, drafts_wanted
from bot.domain.diagnosis import DiagnosisReport, Severity, Symptom
from bot.domain.recipe import differences
from tests.brain.place import ALL, RECIPE, Place, found

FLAT = found(Symptom.PLATEAU, "learning_rate", 0.003)


def test_what_the_diagnosis_suggests_comes_first() -> None:
    remedy = Place().ran(0.1, FLAT).remedy()
    assert (remedy.key, remedy.value, remedy.kind) == ("learning_rate", 0.003, Kind.REPAIR)
    assert remedy.probe  # the evidence gives the direction, a range test the distance


def test_second_fault_follows_when_the_first_is_gone() -> None:
    truncated = found(Symptom.TRUNCATION, "max_length", 512)
    place = Place().ran(0.1, FLAT, truncated).revised().ran(0.1, truncated)
    assert place.remedy().settings == {"max_length": 512}


def test_step_of_the_table_follows_a_suggestion_that_did_not_help() -> None:
    """Other kinds of change come before a third of the same kind."""
    place = Place().ran(0.1, FLAT).revised().ran(0.1, FLAT).revised().ran(0.1, FLAT)
    assert place.remedy().key not in ("learning_rate", "lr_scheduler_type")


def test_half_of_a_change_that_went_too_far_comes_before_more_of_it() -> None:
    broken = found(Symptom.DIVERGENCE, severity=Severity.FATAL)
    place = Place().ran(0.4, found(Symptom.PLATEAU, "learning_rate", 0.01)).revised()
    place.x.recipe = place.x.recipe.replace("0.001", "0.01")
    remedy = place.ran(0.05, broken, kept=None, against_best={"run": 1, "verdict": "worse"}).remedy()
    assert remedy.base == 1
    assert remedy.settings == {"learning_rate": 0.0032}
    assert "Back to run 1's recipe" in remedy.why


@pytest.mark.parametrize(
    ("symptom", "key", "suggested", "words"),
    [
        (Symptom.OOM, "max_length", 128, "shorter"),
        (Symptom.OOM, "use_peft", True, "adapter"),
        (Symptom.FORGETTING, "data_sources", "data/replay.jsonl", "other data"),
        (Symptom.REWARD_HACK, "reward_weights", "1,0", "rewarded"),
    ],
)
def test_change_of_scope_is_left_to_a_person(symptom: Symptom, key: str, suggested: object, words: str) -> None:
    recipe = RECIPE.replace("size: 32", "size: 1") + "gradient_checkpointing: true\nuse_liger_kernel: true\n"
    fatal = found(symptom, key, suggested, severity=Severity.FATAL)
    place = Place(recipe).ran(None, fatal)
    repairs = [place.remedy()]
    if not repairs[0].waits:  # the table knows something within the scope, which is tried first
        assert repairs[0].key != key
        return
    assert repairs[0].key == key
    assert words in repairs[0].waits


def test_same_symptom_under_the_same_kind_of_change_ends_with_the_ledger() -> None:
    stubborn = found(Symptom.PACKING_LEAK, "packing", False)
    place = Place(RECIPE + "packing: true\n", runs=12).ran(0.1, stubborn)
    for value in ("true", "yes", "on"):  # whatever it is called, the symptom stays
        place.x.runs[-1].remedy = {"key": "packing", "value": False, "symptom": "packing_leak", "why": "", "also": {}}
        place.x.recipe = place.x.recipe.replace("seed: 0", f"seed: 0 # {value}").replace("100", f"10{len(value)}")
        place.ran(0.1, stubborn)
    decision = place.decided()
    assert decision.remedy is None
    assert "`packing_leak` still stands after 3 changes of one kind (tokens)" in decision.stuck
    assert "run 1 (the first recipe): 0.1, packing_leak" in decision.stuck


def test_crash_is_retried_five_times_at_most() -> None:
    crash = found(Symptom.OOM, "per_device_train_batch_size", 16, severity=Severity.FATAL)
    place = Place(runs=12).ran(None, crash)
    for batch in (16, 8, 4, 2, 1):
        assert place.decided().remedy is not None
        place.x.recipe = place.x.recipe.replace(f"size: {2 * batch}", f"size: {batch}")
        place.ran(None, crash)
    decision = place.decided()
    assert decision.remedy is None
    assert "runs 1, 2, 3, 4, 5, 6 ended in a crash" in decision.stuck


def test_crash_of_our_own_change_takes_it_back_and_tries_something_else() -> None:
    place = Place(RECIPE, runs=12).ran(0.1, found(Symptom.PLATEAU, "max_grad_norm", 0.5)).revised()
    unknown = found(Symptom.SCRIPT_ERROR, "max_grad_norm", None, severity=Severity.FATAL)
    remedy = place.ran(None, unknown).remedy()
    assert remedy.base == 1
    assert "max_grad_norm" not in remedy.settings
    assert "max_grad_norm" not in yaml.safe_load(remedy.applied(place.x.runs[-1].recipe))
    place.revised().ran(0.2, found(Symptom.PLATEAU))
    assert "max_grad_norm" not in place.remedy().settings, "nor on another run's recipe"


def test_crash_that_nobody_can_name_takes_the_last_change_back_too() -> None:
    place = (
        Place(RECIPE, runs=12).ran(0.1, FLAT).revised().ran(None, found(Symptom.SCRIPT_ERROR, severity=Severity.FATAL))
    )
    assert place.remedy().base == 1


def test_crash_for_another_reason_is_repaired_where_it_happened() -> None:
    """Longer rows no longer fit: a smaller batch is the answer, not the cut rows again."""
    oom = found(Symptom.OOM, "per_device_train_batch_size", 16, severity=Severity.FATAL)
    place = Place(RECIPE, runs=12).ran(0.1, found(Symptom.TRUNCATION, "max_length", 512)).revised().ran(None, oom)
    assert (place.remedy().base, place.remedy().key) == (0, "per_device_train_batch_size")
    assert place.revised().values()["max_length"] == 512


def test_repair_that_made_things_worse_is_not_tried_on_another_runs_recipe() -> None:
    leak = found(Symptom.PACKING_LEAK, "packing", False)
    short = found(Symptom.PLATEAU, "max_steps", 400)
    place = Place(RECIPE + "packing: true\n", runs=12).ran(0.5, leak, short).revised()
    assert place.values()["packing"] is False
    place.ran(0.2, against_best={"run": 1, "verdict": "worse"}).revised()
    assert (place.values()["packing"], place.values()["max_steps"]) == (True, 400)
    place.ran(0.7, leak, short, against_best={"run": 1, "verdict": "better"})
    assert "packing" not in place.remedy().settings


def test_first_draft_is_the_usual_rate_where_the_recipe_is_far_below_it() -> None:
    place = Place(RECIPE.replace("0.001", "2.0e-05"), runs=10).ran(0.4)
    assert place.remedy().settings == {"learning_rate": 1e-3}
    assert Place(runs=10).ran(0.4).remedy().settings == {"max_steps": 200}


def test_drafts_are_independent_and_only_where_the_budget_allows() -> None:
    assert [drafts_wanted(runs) for runs in (1, 5, 6, 8, 10, 30)] == [0, 0, 2, 3, 4, 4]
    place = Place(runs=10).ran(0.4)
    assert place.remedy().why.startswith("Draft 2 of 4: ")
    seen = []
    for value in (0.3, 0.35, 0.32):
        place.revised()
        seen.append(differences(_values(RECIPE), place.values()))
        place.ran(value)
    assert [list(change) for change in seen] == [["max_steps"], ["learning_rate"], ["learning_rate"]]
    assert place.remedy().kind is Kind.SEARCH


def _values(text: str) -> dict[str, object]:
    return dict(yaml.safe_load(text))


def test_cheaper_of_two_that_cannot_be_told_apart_is_kept() -> None:
    place = Place(runs=10).ran(0.50, seconds=60).revised()  # the draft trains twice as long
    place.ran(0.52, seconds=120, against_best={"run": 1, "verdict": "cannot tell"})
    decision = place.decided()
    assert decision.kept is not None
    assert decision.kept["run"] == 1
    assert "cheaper (60 s, not 120)" in decision.kept["why"]
    assert decision.remedy is not None
    assert decision.remedy.base == 1


def test_repair_that_removed_its_symptom_is_kept_though_the_value_says_nothing() -> None:
    place = Place().ran(0.0, FLAT, seconds=60).revised().ran(0.01, seconds=90)
    assert place.decided().kept == {
        "run": 2,
        "why": "it cannot be told from run 1 by its value, and `plateau` is gone",
    }


def test_what_a_person_changed_is_not_taken_back() -> None:
    place = Place(runs=10).ran(0.6)
    place.x.recipe = place.x.recipe.replace("seed: 0", "seed: 7")
    place.ran(0.1, by="maya", against_best={"run": 1, "verdict": "worse"}).revised()
    assert place.values()["seed"] == 7


def test_reward_that_collapses_again_is_an_ablation_of_its_suspects() -> None:
    recipe = RECIPE.replace("method: sft", "method: grpo")
    blown = found(Symptom.KL_BLOWUP, "learning_rate", 0.0003)
    place = Place(recipe, method="grpo").ran(0.4, blown).revised().ran(0.4, blown)
    remedy = place.remedy()
    assert remedy.kind is Kind.ABLATION
    assert [key for key, _ in remedy.arms] == ["learning_rate", "beta", "epsilon_high"]
    few = replace(ALL, covered=frozenset({"learning_rate"}))
    assert place.remedy(means=few).kind is not Kind.ABLATION  # not within what was agreed
    assert place.revised().ran(0.4, blown).remedy().kind is not Kind.ABLATION  # once


@pytest.mark.parametrize("search", [Search.RANDOM, Search.TPE])
def test_blind_search_is_the_same_for_the_same_journal_and_never_repeats_a_recipe(search: Search) -> None:
    def pursued() -> list[str]:
        place = Place(runs=12).ran(0.1, FLAT)
        for n in range(8):
            place.revised(search).ran(0.1 + 0.01 * n)
        return [run.recipe_hash for run in place.x.runs]

    assert pursued() == pursued()
    assert len(set(pursued())) == 9


def test_random_edits_one_key_and_tpe_stays_in_the_space() -> None:
    place = Place(runs=12, seed=3).ran(0.2, FLAT)
    assert len(place.remedy(Search.RANDOM).settings) == 1
    for _ in range(6):
        place.revised(Search.TPE).ran(0.3)
        values = place.values()
        assert 1e-4 <= values["learning_rate"] <= 1e-2
        assert 50 <= values["max_steps"] <= 400
        assert (values["seed"], values["max_length"]) == (0, 256)


def test_tpe_goes_where_it_was_good() -> None:
    place = Place(RECIPE.replace("0.001", "0.0001"), runs=40).ran(0.0)
    for _ in range(24):
        place.revised(Search.TPE)
        rate = place.values()["learning_rate"]
        place.ran(max(0.0, 0.9 - abs(rate - 4e-3) * 200))
    late = [_values(run.recipe)["learning_rate"] for run in place.x.runs[-8:]]
    assert sum(2e-3 < float(str(rate)) < 7e-3 for rate in late) >= 5


def test_search_moves_only_what_was_agreed() -> None:
    few = replace(ALL, covered=frozenset({"max_steps"}))
    for search in (Search.RANDOM, Search.TPE, Search.PLAYBOOK):
        assert set(Place(runs=10).ran(0.4).remedy(search, few).settings) == {"max_steps"}
    none = replace(ALL, covered=frozenset({"packing"}))
    assert Place(runs=10).ran(0.4).decided(Search.RANDOM, none).remedy is None


def test_none_is_one_run() -> None:
    decision = Place().ran(0.1, FLAT).decided(Search.NONE)
    assert decision.remedy is None
    assert "one run was asked for" in decision.stuck


# --- stages


def test_next_stage_starts_from_the_best_run_with_its_own_recipe() -> None:
    place = Place(method="sft, sft, sft", runs=9).ran(0.3).revised()
    assert (place.x.stage, place.values()["init_from"], place.values()["method"]) == (1, "runs/01", "sft")
    assert place.values()["data_sources"] == "data/rows.jsonl"
    place.ran(0.5).revised()
    assert (place.x.stage, place.values()["init_from"]) == (2, "runs/02")
    place.ran(0.6)
    assert place.remedy().kind is not Kind.STAGE


def test_stage_is_repaired_first_while_runs_are_left_for_the_others() -> None:
    place = Place(method="sft, sft", runs=9).ran(0.3, FLAT)
    assert place.remedy().kind is Kind.REPAIR
    assert place.remedy(means=replace(ALL, runs_left=1)).kind is Kind.STAGE


def test_blind_policies_go_through_the_stages_too() -> None:
    for search in (Search.RANDOM, Search.TPE, Search.NONE):
        assert Place(method="sft, sft").ran(0.3, FLAT).remedy(search).kind is Kind.STAGE


def test_samples_that_are_never_rewarded_ask_for_sft_first() -> None:
    """A person decides where the goal names the method; the method then goes on from what sft gives."""
    dead = found(Symptom.REWARD_ZERO, severity=Severity.FATAL)
    recipe = RECIPE.replace("method: sft", "method: grpo")
    place = Place(recipe + "temperature: 1.2\nnum_generations: 8\nper_device_train_batch_size: 12\n", method="grpo")
    remedy = place.ran(0.0, dead).remedy()
    assert remedy.kind is Kind.STAGE
    assert remedy.value == "sft"
    assert "another method first" in remedy.waits
    place.revised().ran(0.5)
    again = place.remedy()
    assert (again.value, again.also) == ("grpo", {"init_from": "runs/02"})


def test_reward_that_cannot_tell_is_asked_about_before_anything_is_run_under_it() -> None:
    """Neither more samples nor imitation first: the reward pays every answer the same."""
    text = RECIPE.replace("method: sft", "method: grpo") + "reward_functions: answered\nnum_generations: 8\n"
    blind = found(Symptom.ZERO_STD, "reward_functions", "exact_match", severity=Severity.FATAL)
    decision = Place(text, method="grpo").ran(0.0, blind).decided()
    assert decision.remedy is not None and not decision.stuck
    assert decision.remedy.settings == {"reward_functions": "exact_match"} and "rewarded" in decision.remedy.waits
    assert {each.key for each in remedies_for(DiagnosisReport((blind,)), text, tried={})} == {"reward_functions"}
    # Where none is known, it may be the model that cannot do it yet: other samples may earn something.
    nameless = found(Symptom.REWARD_ZERO, "reward_functions", None, severity=Severity.FATAL)
    assert "temperature" in {each.key for each in remedies_for(DiagnosisReport((nameless,)), text, tried={})}


def test_pairs_that_lost_their_chosen_answers_get_a_term_that_holds_them() -> None:
    text = RECIPE.replace("method: sft", "method: dpo") + "beta: 0.1\n"
    lost = found(Symptom.DPO_DISPLACEMENT, "learning_rate", 0.0003)
    place = Place(text).ran(0.1, lost).revised().ran(0.1, lost).revised().ran(0.1, lost)
    assert place.remedy().settings == {"loss_type": "sigmoid,sft", "loss_weights": "1.0,0.2"}


def test_shorter_training_that_did_not_help_is_not_made_shorter_still() -> None:
    """At chance a classifier is first given a rate and a length that could have moved it."""
    recipe = RECIPE.replace("method: sft", "method: classify")
    noisy = found(Symptom.LABEL_NOISE)
    place, lengths = Place(recipe, method="classify", runs=12).ran(0.5, noisy), []
    for _ in range(4):
        place.revised().ran(0.5, noisy)
        lengths.append(place.values()["max_steps"])
    assert lengths[:2] == [200, 400]
    assert sum(length < 100 for length in lengths) <= 1


def test_crash_that_nothing_is_known_against_is_a_persons() -> None:
    """Another rate or a longer training does not mend a script that does not start."""
    decision = Place(RECIPE, runs=12).ran(None, found(Symptom.SCRIPT_ERROR, severity=Severity.FATAL)).decided()
    assert decision.remedy is None
    assert "run 1 ended in a crash, and no change is known against it" in decision.stuck
