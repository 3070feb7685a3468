"""GitHub's issue forms: read a repository's templates, check what a person filled in, and write the Markdown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

TEMPLATE_FOLDER = ".github/ISSUE_TEMPLATE"
NO_RESPONSE = "_No response_"
# GitHub's limit on the body of an issue; no template needs to be longer.
LONGEST_TEMPLATE = 65_536
# A form needs six: the file, its body, an element, its attributes, its options, an option.
DEEPEST_TEMPLATE = 20


class FormError(Exception):
    """A template that cannot become a form; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One element of a form's body, with GitHub's names."""

    type: str
    # markdown, input, textarea, dropdown or checkboxes
    id: str
    label: str = ""
    description: str = ""
    placeholder: str = ""
    value: str = ""
    # what stands in it at first; the text itself for markdown
    render: str = ""
    # language of the fence a textarea's answer is put into
    choices: tuple[Choice, ...] = ()
    multiple: bool = False
    default: int | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    file: str
    name: str
    description: str
    title: str
    labels: tuple[str, ...]
    assignees: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def questions(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.type != "markdown")


def parse(file: str, source: str) -> Form:
    """A form from a template's YAML.

    Raises:
        FormError: saying what to change in the template.
    """
    if len(source) > LONGEST_TEMPLATE:
        raise FormError(f"{file} is longer than {LONGEST_TEMPLATE:,} characters.")
    try:
        _require_shallow(file, source)
        data = yaml.safe_load(source)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise FormError(f"{file} is not valid YAML" + (f" (line {where.line + 1})." if where else ".")) from None
    if not isinstance(data, dict) or not isinstance(data.get("body"), list):
        raise FormError(f"{file} needs `name`, `description` and a `body` list.")
    fields = tuple(_field(file, index, element) for index, element in enumerate(data["body"]))
    if not any(field.type != "markdown" for field in fields):
        raise FormError(f"{file} asks for nothing: its `body` needs at least one field that is not markdown.")
    return Form(
        file,
        name=_text(data.get("name")) or file,
        description=_text(data.get("description")),
        title=_text(data.get("title")),
        labels=_words(data.get("labels")),
        assignees=_words(data.get("assignees")),
        fields=fields,
    )


def _require_shallow(file: str, source: str) -> None:
    # Thousands of open brackets take the loader seconds, and then its recursion limit.
    depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_TEMPLATE:
            raise FormError(f"{file} is nested more than {DEEPEST_TEMPLATE} levels deep.")


def _text(value: object) -> str:
    # Only scalars: writing out nested aliases is how a small file becomes a gigabyte.
    return str(value) if isinstance(value, (str, int, float)) else ""


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return tuple(_text(word) for word in value) if isinstance(value, list) else ()


def _field(file: str, index: int, element: object) -> Field:
    if not isinstance(element, dict):
        raise FormError(f"{file}: element {index + 1} of `body` is not a mapping.")
    kind = _text(element.get("type"))
    attributes = element.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise FormError(f"{file}: the `attributes` of element {index + 1} are not a mapping.")
    if kind == "markdown":
        return Field("markdown", f"markdown-{index}", value=_text(attributes.get("value")))
    if kind not in ("input", "textarea", "dropdown", "checkboxes"):
        raise FormError(f"{file}: element {index + 1} has the unknown type `{kind}`.")
    if not _text(attributes.get("label")):
        raise FormError(f"{file}: element {index + 1} needs a `label`.")
    choices = _choices(file, index, kind, attributes.get("options"))
    default = attributes.get("default")
    return Field(
        kind,
        id=_text(element.get("id")) or f"field-{index}",
        label=_text(attributes["label"]),
        description=_text(attributes.get("description")),
        placeholder=_text(attributes.get("placeholder")),
        value=_text(attributes.get("value")),
        render=_text(attributes.get("render")),
        choices=choices,
        multiple=bool(attributes.get("multiple")),
        default=default if isinstance(default, int) and 0 <= default < len(choices) else None,
        required=bool((element.get("validations") or {}).get("required")),
    )


def _choices(file: str, index: int, kind: str, options: Any) -> tuple[Choice, ...]:
    if kind not in ("dropdown", "checkboxes"):
        return ()
    if not isinstance(options, list) or not options:
        raise FormError(f"{file}: element {index + 1} needs a list of `options`.")
    if kind == "dropdown":
        return tuple(Choice(_text(option)) for option in options)
    return tuple(
        Choice(_text(option.get("label")), bool(option.get("required")))
        for option in options
        if isinstance(option, dict)
    )


Answers = Mapping[str, Sequence[str]]
"""What was sent: the field's id to its values (several for a list that allows it, the ticked labels for checkboxes)."""


def missing(form: Form, answers: Answers) -> dict[str, str]:
    """A sentence for each required field that is empty, by the field's id."""
    problems: dict[str, str] = {}
    for field in form.questions:
        given = [value for value in answers.get(field.id, ()) if value.strip()]
        if field.type == "checkboxes":
            unticked = [choice.label for choice in field.choices if choice.required and choice.label not in given]
            if unticked:
                problems[field.id] = f"Tick “{unticked[0]}”."
        elif field.required and not given:
            problems[field.id] = f"Fill in “{field.label}”."
        elif field.type == "dropdown" and any(
            value not in {choice.label for choice in field.choices} for value in given
        ):
            problems[field.id] = f"Choose one of the listed values for “{field.label}”."
    return problems


def body(form: Form, answers: Answers) -> str:
    """The issue's Markdown, in the form GitHub gives it: a level-three heading and the answer for each question."""
    return "\n\n".join(f"### {field.label}\n\n{_answer(field, answers.get(field.id, ()))}" for field in form.questions)


def _answer(field: Field, values: Sequence[str]) -> str:
    if field.type == "checkboxes":
        return "\n".join(f"- [{'x' if choice.label in values else ' '}] {choice.label}" for choice in field.choices)
    given = [value.replace("\r\n", "\n").strip("\n") if field.type == "textarea" else value.strip() for value in values]
    given = [value for value in given if value.strip()]
    if not given:
        return NO_RESPONSE
    if field.type == "dropdown":
        return ", ".join(given)
    if field.render:
        return f"```{field.render}\n{given[0]}\n```"
    return given[0]
