"""Reads a recipe.yaml that anybody may have written: flat, bounded, and under the names that the rules know."""

from __future__ import annotations

from typing import Any

import yaml

from bot.diagnosis.observations import ALIASES
from bot.domain.recipe import normalised
from bot.errors import UserError

RECIPE_BYTES = 64 << 10
RECIPE_DEPTH = 8
RECIPE_BRACKETS = 200


def parsed_recipe(text: str) -> dict[str, Any]:
    """The recipe's keys, normalised.

    Raises: UserError when `text` is no YAML mapping, or uses aliases (a few lines of them expand without end).
    """
    # PyYAML takes seconds for a few thousand open brackets, and minutes for a file of them.
    if len(text) >= RECIPE_BYTES or text.count("[") + text.count("{") > RECIPE_BRACKETS:
        raise UserError("recipe.yaml is too large or too nested for a recipe. Write one `key: value` per line.")
    try:
        _refuse_expansion(text)
        values = yaml.safe_load(text)
        if values is None:
            return {}
        if isinstance(values, dict):
            return normalised(values)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise UserError(f"recipe.yaml is not valid YAML ({reason}). Write one `key: value` per line.") from error
    raise UserError(f"recipe.yaml holds a {type(values).__name__}, not keys. Write one `key: value` per line.")


def under_our_names(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with other trainers' keys under TRL's names as well; a key that is there itself stands."""
    known = {
        key: recipe[alias]
        for key, aliases in ALIASES.items()
        for alias in aliases
        if alias in recipe and key not in recipe
    }
    if str(recipe.get("adapter", recipe.get("finetuning_type", ""))).lower() in ("lora", "qlora"):
        known.setdefault("use_peft", True)
    return {**known, **recipe}


def _refuse_expansion(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("recipe.yaml uses YAML aliases (*name). Write each value out, one key per line.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > RECIPE_DEPTH:
            raise UserError("recipe.yaml is nested too deeply. Write one `key: value` per line.")
