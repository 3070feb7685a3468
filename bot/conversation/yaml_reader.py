"""YAML that strangers wrote, read into plain values with every place known and nothing that can explode.

Anchors, aliases, tags, merge keys, repeated keys, deep nesting and large texts are refused before a value is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

Place = tuple[int, int]
"""1-based line and column."""


class Problem(NamedTuple):
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place[0]}:{self.place[1]} {self.text}"


@dataclass(frozen=True, slots=True)
class Limits:
    bytes: int = 16_384
    keys: int = 200
    depth: int = 1
    """Mappings and lists inside one another; 1 is a flat mapping."""


class YamlDocument(NamedTuple):
    """`values` is None when `problems` has anything in it, or when the text holds nothing."""

    values: dict[str, Any] | None
    places: dict[tuple[str | int, ...], Place]
    """Path of a key or list item -> where it stands."""
    problems: list[Problem]


def read_mapping(text: str, limits: Limits = Limits()) -> YamlDocument:
    """The mapping that `text` holds. Never raises; an empty text is an empty mapping."""
    size = len(text.encode(errors="replace"))
    if size > limits.bytes:
        return _refused((1, 1), f"The YAML has {size:,} bytes; at most {limits.bytes:,} are read. Write a shorter one.")
    events_problem = _problem_in_events(text, limits)
    if events_problem is not None:
        return YamlDocument(None, {}, [events_problem])
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return YamlDocument({}, {}, [])
        if not isinstance(node, yaml.MappingNode):
            return _refused(_place(node.start_mark), "This is not a mapping: write one `key: value` per line.")
        places: dict[tuple[str | int, ...], Place] = {}
        problems: list[Problem] = []
        _collect(node, (), places, problems)
        if problems:
            return YamlDocument(None, places, problems)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return YamlDocument(None, {}, [_from_yaml_error(error)])
    except (ValueError, OverflowError, RecursionError, AttributeError, TypeError, IndexError):
        # PyYAML's constructors raise these for dates that do not exist and integers of thousands of digits.
        return _refused((1, 1), "A value cannot be read: write numbers as `0.001` or `300` and text in quotes.")
    return YamlDocument(values, places, [])


def _problem_in_events(text: str, limits: Limits) -> Problem | None:
    """What forbids reading the text, found on the flat stream of parser events: no node is built yet."""
    depth = keys = documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            place = _place(event.start_mark)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    return Problem(place, "A second document (`---`) starts here: write a single one.")
            elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                return Problem(place, "Anchors and aliases (`&name`, `*name`) are not read: write the value itself.")
            elif isinstance(event, yaml.NodeEvent):
                keys += 1
                if getattr(event, "tag", None):
                    return Problem(place, "Tags (`!name`) are not read: write the plain value.")
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                    if depth > limits.depth:
                        return Problem(place, _too_deep(limits))
                if keys > 2 * limits.keys + 1:
                    return Problem(place, f"More than {limits.keys} keys: write fewer.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError as error:
        return _from_yaml_error(error)
    except (ValueError, RecursionError, IndexError, TypeError, AttributeError):
        return Problem((1, 1), "This is not YAML: write one `key: value` per line.")
    return None


def _too_deep(limits: Limits) -> str:
    if limits.depth == 1:
        return "A value here is a list or a mapping: write one plain value per key, `learning_rate: 0.001` for example."
    return f"Nested deeper than {limits.depth} levels: write it flatter."


def _collect(
    node: yaml.Node,
    path: tuple[str | int, ...],
    places: dict[tuple[str | int, ...], Place],
    problems: list[Problem],
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            place = _place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                problems.append(Problem(place, "A key must be a plain word: write `key: value`."))
                continue
            key = str(key_node.value)
            if (*path, key) in places:
                problems.append(Problem(place, f"`{key}` is set twice: keep one of the two lines."))
            places[(*path, key)] = place
            _collect(value_node, (*path, key), places, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[(*path, index)] = _place(item.start_mark)
            _collect(item, (*path, index), places, problems)


def _place(mark: Any) -> Place:
    """Place of a `yaml.Mark`, PyYAML's own or libyaml's."""
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _from_yaml_error(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = str(getattr(error, "problem", "") or "").strip()
    # A reader error means characters that YAML forbids; it has no mark.
    detail = f" ({what})" if what.isascii() and 0 < len(what) < 80 else ""
    return Problem(_place(mark), f"This is not YAML{detail}: write one `key: value` per line.")


def _refused(place: Place, text: str) -> YamlDocument:
    return YamlDocument(None, {}, [Problem(place, text)])
