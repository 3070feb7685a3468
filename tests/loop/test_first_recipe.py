"""The recipe that a goal's first run trains with, where the benchmark has a word in it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bot.evaluation.benchmarks import load_benchmark
from bot.loop.actions.contract import _first_recipe
from tests.brain.place import goal

WHISPER = {"is_multilingual": True, "lang_to_id": {"<|en|>": 50259}}
ENGLISH = {"is_multilingual": False}


@pytest.mark.parametrize(
    ("settings", "recipe", "language"),
    [
        (WHISPER, None, "en"),
        (WHISPER, "language: de\n", "de"),
        (WHISPER, "learning_rate: 1.0e-5\n", "en"),
        (ENGLISH, None, None),
        (None, None, None),
    ],
)
def test_recogniser_of_several_languages_is_trained_in_the_benchmarks(
    tmp_path: Path, settings: dict[str, Any] | None, recipe: str | None, language: str | None
) -> None:
    model = tmp_path / "acme" / "whisper"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    if settings is not None:
        (model / "generation_config.json").write_text(json.dumps(settings))
    world: Any = SimpleNamespace(model_folders=[tmp_path])
    asked = goal(method="speech", base_model="acme/whisper", benchmark="librispeech", recipe=recipe)
    text, _ = _first_recipe(world, asked, load_benchmark("librispeech"), "data/rows.jsonl", finds_data=False)
    assert yaml.safe_load(text).get("language") == language
