"""The functions that code in the sandbox may call, each with the arguments that it takes: a closed list.

What is called is decided by the name alone and every argument is looked at before the function sees it, because whoever
calls has to be taken for hostile. A function answers a JSON value with the source it is from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bot.errors import UserError

_NAME = re.compile(r"[a-z][a-z_]{0,30}\.[a-z][a-z0-9_]{0,30}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Kind(StrEnum):
    TEXT = "str"
    WHOLE = "int"
    NUMBER = "float"
    FLAG = "bool"
    TEXTS = "list[str]"
    MAPPING = "dict"
    """Text keys; values are texts, numbers, flags, null, or lists of these."""


_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. `least` and `most` bound a number; `characters` each text; `many` a list or a mapping."""

    kind: Kind
    about: str = ""
    default: Any = _MISSING
    """None beside its kind's values where it says so; without one the argument has to be given."""
    least: float = -(2.0**53)
    most: float = 2.0**53
    characters: int = 300
    many: int = 20
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """What a text has to be, whole."""

    @property
    def required(self) -> bool:
        return self.default is _MISSING


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function found, and where that comes from."""

    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class Function:
    """`call` gets the checked arguments by name. Raises: UserError for what the caller has to mend."""

    about: str
    """One sentence, then what comes back."""
    call: Callable[..., Awaitable[Answer]]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


Registry = Mapping[str, Function]
"""`room.function` -> function."""


def signature(name: str, parameters: Mapping[str, Parameter]) -> str:
    """As Python writes it."""
    shown = (f"{key}: {p.kind}" + ("" if p.required else f" = {p.default!r}") for key, p in parameters.items())
    return f"{name}({', '.join(shown)})"


def checked_registry(functions: Registry) -> dict[str, Function]:
    """The same, once every name has been seen to be one, and what must be given to come first. Raises: ValueError, a
    mistake of ours."""
    for name, function in functions.items():
        given = [parameter.required for parameter in function.parameters.values()]
        if given != sorted(given, reverse=True):
            raise ValueError(f"{name}: parameters without a default cannot come after others")
        words = (name, *(f"x.{key}" for key in function.parameters))
        if wrong := next((word for word in words if not _NAME.fullmatch(word)), None):
            raise ValueError(f"{wrong!r} cannot be a function's or a parameter's name")
    return dict(functions)


def schema_of(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """The JSON Schema of such arguments, an object."""
    return {
        "type": "object",
        "properties": {key: _schema(parameter) for key, parameter in parameters.items()},
        "required": [key for key, parameter in parameters.items() if parameter.required],
        "additionalProperties": False,
    }


def _schema(p: Parameter) -> dict[str, Any]:
    about = {"description": p.about} if p.about else {}
    match p.kind:
        case Kind.TEXT:
            return {"type": "string", **({"enum": list(p.choices)} if p.choices else {}), **about}
        case Kind.WHOLE | Kind.NUMBER:
            kind = "integer" if p.kind is Kind.WHOLE else "number"
            return {"type": kind, "minimum": p.least, "maximum": p.most, **about}
        case Kind.FLAG:
            return {"type": "boolean", **about}
        case Kind.TEXTS:
            return {"type": "array", "items": {"type": "string"}, "maxItems": p.many, **about}
        case Kind.MAPPING:
            return {"type": "object", **about}


def checked_arguments(name: str, parameters: Mapping[str, Parameter], given: Any) -> dict[str, Any]:
    """What `name` is called with. Raises: UserError, which says what to write instead."""
    if not isinstance(given, Mapping):
        raise UserError(f"{name}: the arguments are no mapping. Write {signature(name, parameters)}.")
    if unknown := [str(key)[:60] for key in given if key not in parameters]:
        raise UserError(f"{name} takes no argument {unknown[0]!r}. Write {signature(name, parameters)}.")
    found: dict[str, Any] = {}
    for key, parameter in parameters.items():
        if key in given:
            found[key] = _checked(f"{name}: {key}", parameter, given[key])
        elif parameter.required:
            raise UserError(f"{name}: {key} is missing. Write {signature(name, parameters)}.")
        else:
            found[key] = parameter.default
    return found


def _checked(where: str, p: Parameter, value: Any) -> Any:
    if value is None and p.default is None:
        return None
    match p.kind:
        case Kind.TEXT:
            return _text(where, p, value)
        case Kind.WHOLE | Kind.NUMBER:
            return _number(where, p, value)
        case Kind.FLAG:
            if not isinstance(value, bool):
                raise UserError(f"{where} is {_shown(value)}. Write True or False.")
            return value
        case Kind.TEXTS:
            if not isinstance(value, list) or len(value) > p.many:
                raise UserError(f"{where} is {_shown(value)}. Write a list of at most {p.many} texts.")
            return [_text(where, p, one) for one in value]
        case Kind.MAPPING:
            return _mapping(where, p, value)


def _text(where: str, p: Parameter, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {_shown(value)}. Write a text.")
    if len(value) > p.characters or _CONTROL.search(value):
        raise UserError(f"{where}: write at most {p.characters} characters, none of them a control character.")
    if p.choices and value not in p.choices:
        raise UserError(f"{where} is {_shown(value)}. Write one of {', '.join(p.choices)}.")
    if p.pattern and not re.fullmatch(p.pattern, value):
        raise UserError(f"{where} is {_shown(value)}, and that is none. {p.about}".rstrip())
    return value


def _number(where: str, p: Parameter, value: Any) -> int | float:
    whole = p.kind is Kind.WHOLE
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise UserError(f"{where} is {_shown(value)}. Write a {'whole number' if whole else 'number'}.")
    if not (p.least <= value <= p.most) or not math.isfinite(value):
        raise UserError(f"{where} is {_shown(value)}. Write a number from {p.least:g} to {p.most:g}.")
    return value


def _mapping(where: str, p: Parameter, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > p.many:
        raise UserError(f"{where} is {_shown(value)}. Write a mapping of at most {p.many} keys.")
    return {_text(where, p, key): _plain(where, p, one) for key, one in value.items()}


def _plain(where: str, p: Parameter, value: Any, *, inside: bool = False) -> Any:
    if isinstance(value, str):
        return _text(where, p, value)
    if value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= p.most):
        return value
    if isinstance(value, list) and not inside and len(value) <= p.many:
        return [_plain(where, p, one, inside=True) for one in value]
    raise UserError(f"{where}: {_shown(value)} cannot stand there. Write texts, numbers or short lists of them.")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"
