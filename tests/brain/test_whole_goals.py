"""Whole goals under reports that are right, wrong, contradictory or always the same: what holds after every run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from bot.brain.fitting import ONLY_OF
from bot.brain.keeping import comparable_runs
from bot.brain.playbook import Kind, Means, Remedy, starting_recipe
from bot.brain.remedies import STEPS, family_of, scope_change
from bot.brain.search import MOST_CRASHES, MOST_FAILED_REPAIRS, next_change
from bot.brain.space import Dimension, Trial
from bot.conversation.policy import DEFAULT_RECIPE_KEYS
from bot.conversation.recipe_rules import recipe_problems, setting_problem
from bot.diagnosis.learning_rates import rate_of
from bot.domain.diagnosis import Diagnosis, Severity, Symptom
from bot.domain.goal import digest_of
from bot.domain.methods import METHODS
from bot.domain.recipe import differences, line_of, normalised_value, recipe_hash, with_value
from tests.brain.place import Place, found, goal

GOALS = 40
POSITIONS = 2048
LINES: dict[str, Sequence[str]] = {
    "learning_rate": ("1e-5", "0.001", "1.0e-8  # by hand", '"3e-4"', "1"),
    "max_steps": ("100", "7", "-1", '"300"', "10000000"),
    "num_train_epochs": ("1", "0.1", "'2'"),
    "per_device_train_batch_size": ("1", "8  # one device", "3", "'16'", "65536"),
    "gradient_accumulation_steps": ("1", "4"),
    "warmup_steps": ("0.1", "5", "90"),
    "optim": ("sgd", "adamw_torch", "paged_adamw_8bit"),
    "max_grad_norm": ("0", "1000"),
    "num_epochs": ("3",),
    "seed": ("7",),
}
OF_METHOD: dict[str, Sequence[str]] = {
    "max_length": ("1024", "null", "64", "131072"), "num_generations": ("8", "2", "'4'"), "beta": ("0.1", "1000"),
    "temperature": ("1.0", "10"), "max_completion_length": ("64", "null"),
}  # fmt: skip
BLAMED = (
    *LINES,
    *OF_METHOD,
    "use_peft",
    "load_in_4bit",
    "data_sources",
    "init_from",
    "data_max_rows",
    "fp16",
    "packing",
)
WILD = (0, -1, 1e-12, 1e30, float("nan"), float("inf"), "abc", "", True, [1, 2], {"a": 1}, 2**70, 0.5, 16)


def brought(draw: random.Random, method: str) -> str:
    """A recipe as strangers write them, of those that an issue may bring."""
    known = LINES | {key: values for key, values in OF_METHOD.items() if method in ONLY_OF[key]}
    keys = draw.sample(sorted(known), draw.randrange(2, len(known)))
    text = f"# copied: from a card\nmethod: {method}\n" + "".join(f"{key}: {draw.choice(known[key])}\n" for key in keys)
    assert recipe_problems(text) == []
    return text


def blames(draw: random.Random, values: Mapping[str, Any], pool: Sequence[Symptom], wild: bool) -> Diagnosis:
    symptom, key, value = draw.choice(pool), draw.choice(BLAMED), None
    before = normalised_value(values.get(key))
    steps = [change for step in STEPS.get(symptom, ()) if (change := step.change(values))]
    if wild:
        value = draw.choice(WILD)
    elif steps and draw.random() < 0.5:
        key, value = next(iter(draw.choice(steps).items()))
    elif isinstance(before, int | float) and not isinstance(before, bool):
        value = before * draw.choice((0.1, 0.5, 2, 10))
    return found(symptom, key, value, severity=draw.choice(tuple(Severity)))


def drawn_at_random(space: Sequence[Dimension], _: Sequence[Trial], seed: int) -> Iterator[dict[str, Any]]:
    """In place of Optuna, which takes a tenth of a second for a proposal and has tests of its own."""
    draw = random.Random(seed)
    for _attempt in range(50):
        yield {dimension.key: dimension.drawn(draw) for dimension in space}


@pytest.mark.parametrize("start", range(0, GOALS, 10))
def test_no_goal_leaves_its_bounds(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.brain.search.tpe_proposals", drawn_at_random)
    for number in range(start, start + 10):
        try:
            pursue(random.Random(number))
        except Exception as error:
            raise AssertionError(f"goal {number}: {error}") from error


def pursue(draw: random.Random) -> None:
    method = draw.choice(sorted(METHODS))
    own = draw.random() < 0.1
    recipe = brought(draw, method) if own or draw.random() < 0.6 else None
    asked = goal(
        method=method, recipe=recipe, script="mine.py" if own else None, runs=draw.randrange(1, 13),
        metric=draw.choice(("exact_match", "word_error_rate")),
    )  # fmt: skip
    size = draw.choice((3e5, 1.3e8, 1.7e9, None))
    place = Place(starting_recipe(asked, family="qwen3", parameters=size or 0.0, data_source="data/rows.jsonl").text)
    place.x.goal = asked
    covered = draw.choice((frozenset({"*"}), frozenset(DEFAULT_RECIPE_KEYS), frozenset({"learning_rate"})))
    pool = draw.sample(tuple(Symptom), draw.choice((1, 3, len(Symptom))))
    wild, crashes = draw.random() < 0.2, draw.choice((0.0, 0.3, 1.0))
    while len(place.x.runs) < place.x.ceilings.runs:
        values = place.values()
        report = [blames(draw, values, pool, wild) for _ in range(draw.choice((0, 1, 1, 3)))]
        value = None if draw.random() < crashes else draw.random()
        place.ran(value, *report, seconds=draw.choice((10.0, 1000.0)))
        means = Means(place.x.ceilings.runs - len(place.x.runs), "qwen3", size, covered, POSITIONS, 2500.0)
        decision = next_change(place.x, means)
        assert next_change(place.x, means) == decision
        remedy = decision.remedy
        if remedy is None or remedy.waits or decision.stuck:
            return
        holds(place, remedy, size, own=own)
        arms = remedy.arms or ((remedy.key, remedy.value),)
        place.x.runs[-1].remedy = Remedy.from_dict(remedy.as_dict()).as_dict()
        place.x.recipe = (
            with_value(place.x.recipe, *draw.choice(arms)) if remedy.arms else remedy.applied(place.x.recipe)
        )
        if remedy.stage is not None:
            place.x.stage = remedy.stage["index"]


def holds(place: Place, remedy: Remedy, size: float | None, *, own: bool) -> None:
    """What is true of every change that Postdoc makes by itself."""
    x, run = place.x, place.x.runs[-1]
    text = remedy.recipe or run.recipe
    before, after = yaml.safe_load(text), yaml.safe_load(remedy.applied(run.recipe))
    crashed = [each.failure is not None for each in comparable_runs(x)[-MOST_CRASHES - 1 :]]
    assert not (len(crashed) > MOST_CRASHES and all(crashed)), "a crash is retried five times"
    if remedy.kind is Kind.ABLATION:
        assert not any((each.remedy or {}).get("kind") == Kind.ABLATION for each in comparable_runs(x)[:-1])
        changes: list[dict[str, Any]] = [dict([arm]) for arm in remedy.arms]
    else:
        assert recipe_hash(after, script_digest=digest_of(run.digests)) not in x.tried, "nothing is trained twice"
        changes = [remedy.settings]
    if remedy.stage is not None:
        return
    for settings in changes:
        sound(before, text, settings, size, own=own)
    if remedy.kind is Kind.REPAIR:
        assert differences(before, after).keys() <= remedy.settings.keys()
        shortened = {key for key in remedy.settings if key != "warmup_steps" or key == remedy.key}
        assert len({family_of(key) for key in shortened}) == 1, "one cause, and the warm-up of a training cut shorter"
        again = [
            each for each, later in zip(x.runs, x.runs[1:], strict=False)
            if each.remedy and remedy.symptom in later.symptoms
            and (each.remedy["symptom"], family_of(each.remedy["key"])) == (remedy.symptom, family_of(remedy.key))
        ]  # fmt: skip
        assert len(again) < MOST_FAILED_REPAIRS


def sound(before: dict[str, Any], text: str, settings: dict[str, Any], size: float | None, *, own: bool) -> None:
    """The values are some that the script takes, within bounds, and each stands on its line, comments and all."""
    after = {**before, **settings}
    assert scope_change(before, after) is None, settings
    assert (normalised_value(after.get("max_length")) or 0) <= max(
        POSITIONS, normalised_value(before.get("max_length")) or 0
    )
    for key, value in settings.items():
        assert setting_problem(key, value) is None or (key, value) == ("chat_template_path", None), (key, value)
        assert key in before or not own, f"{key} for a script that nobody knows"
        assert key in before or before["method"] in ONLY_OF.get(key, METHODS), f"{key} for {before['method']}"
        written = with_value(text, key, value)
        assert normalised_value(yaml.safe_load(written)[key]) == normalised_value(value)
        assert written.count("#") == text.count("#")
        number = line_of(text, key)
        if number is not None:
            changed = [
                n
                for n, pair in enumerate(zip(text.split("\n"), written.split("\n"), strict=True), 1)
                if pair[0] != pair[1]
            ]
            assert changed == [number]
    if "learning_rate" in settings:
        old, new = rate_of(before, size), rate_of(after, size)
        assert new.floor <= new.current or new.current >= old.current, settings
        assert new.current <= max(old.current, new.band.ceiling), settings
