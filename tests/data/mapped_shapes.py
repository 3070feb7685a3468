"""What the mapper makes of the schema shapes, in the words that `schema_scoring` judges.

python -m tests.data.mapped_shapes    # the scores of each folder of shapes; what was not right
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bot.data.columns import ROLES, ColumnMapping, divided, map_columns
from tests.data.schema_scoring import FRESH, LATE, LATEST, SCHEMAS, UNSEEN, Score, score, shapes

_CALL = re.compile(r"([a-z]+1?)\((.*)\)")


def mapped(shape: Mapping[str, Any]) -> ColumnMapping | None:
    """The mapping of a shape's two rows and its types; None for a method that there is not."""
    if shape["method"] not in ROLES:
        return None
    return map_columns(shape["rows"], shape["method"], features_of(shape["columns"]))


def features_of(types: Mapping[str, str]) -> dict[str, Any]:
    """Types as the Hub has them, as far as they say more than the rows do."""
    found: dict[str, Any] = {}
    for name, kind in types.items():
        if match := re.fullmatch(r"class_label<(.*)>", kind):
            found[name] = {"_type": "ClassLabel", "names": [one.strip() for one in match[1].split(",")]}
        elif kind.startswith(("image", "audio")):
            found[name] = {"_type": kind[:5].capitalize()}
        else:
            found[name] = {"_type": "Value", "dtype": kind}
    return found


def answer(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The answer for one shape, judged by its roles."""
    mapping = mapped(shape)
    if mapping is None:
        return {"ask": f"method {shape['method']} is not known"}
    if mapping.question is not None:
        return {"ask": mapping.question.sentence()}
    roles: dict[str, str] = {}
    for use in mapping.uses:
        role = "reference" if (shape["method"], use.role) == ("grpo", "completion") else use.role
        for column, part in _roles(use.expression, role, list(shape["columns"])):
            roles.setdefault(column, part)
    return {"roles": roles}


def _roles(expression: str, role: str, columns: Sequence[str]) -> list[tuple[str, str]]:
    """(column or column.field, role) of everything that an expression reads."""
    if expression in columns:
        return [(expression, role)]
    parts = divided(expression, "+")
    if len(parts) > 1:
        return [pair for part in parts for pair in _roles(part, role, columns)]
    call = _CALL.fullmatch(expression.strip())
    if call is None:
        path = re.sub(r"\[-?\d+\]", "", expression.strip().removesuffix("?"))
        return [(path, role)]
    name, arguments = call[1], divided(call[2], ",")
    if name == "shared":
        return []  # the answers say it
    if name in ("rest", "after", "turns", "final"):
        return _roles(arguments[0], role, columns)
    if name == "options":
        return [pair for one in arguments for pair in _roles(one, role, columns)]
    if name in ("pick", "pick1") and role in ("completion", "reference"):
        return _roles(arguments[0], role, columns)
    better = role if role in ("completion", "messages") else "chosen"
    if name in ("pick", "pick1", "other", "other1"):
        return [(arguments[0], "score"), *_roles(arguments[1], better, columns)]
    if name in ("best", "worst", "lowest", "highest"):
        return [*_roles(arguments[0], better, columns), *_roles(arguments[1], "score", columns)]
    worse = "rejected" if better == "chosen" else better
    if name in ("higher", "lower"):
        scores = [pair for one in arguments[1::2] for pair in _roles(one, "score", columns)]
        first, second = (_roles(one, part, columns) for one, part in zip(arguments[::2], (better, worse), strict=True))
        return [*scores, *first, *second]
    if name == "by":
        sides = list(dict.fromkeys(case.partition("=")[2] for case in arguments[1:]))
        if role == "rejected":
            sides.reverse()
        pairs = zip(sides, (better, worse), strict=True)
        return [(arguments[0], "score"), *(pair for side, part in pairs for pair in _roles(side, part, columns))]
    raise ValueError(expression)


def measured(folder: Path = SCHEMAS) -> Score:
    return score({name: answer(shape) for name, shape in shapes(folder).items()}, folder)


if __name__ == "__main__":
    for folder in (SCHEMAS, UNSEEN, FRESH, LATE, LATEST):
        print(folder.name, *measured(folder).lines(), sep="\n")
