"""Issue forms: what a template asks, and the Markdown that GitHub makes of the answers."""

from __future__ import annotations

import pytest

from bot.practice.pages.issue_form import FormError, body, missing, parse

TEMPLATE = """
name: Goal
description: Ask for a better model.
title: "Raise <model>"
labels: [postdoc, "help wanted"]
body:
  - type: markdown
    attributes: {value: "Read **this**."}
  - type: input
    id: model
    attributes: {label: Base model, placeholder: Qwen}
    validations: {required: true}
  - type: textarea
    id: recipe
    attributes: {label: Starting recipe, render: yaml}
  - type: textarea
    id: notes
    attributes: {label: Notes}
  - type: dropdown
    id: method
    attributes: {label: Method, options: [Choose for me, sft, dpo], default: 0}
  - type: dropdown
    id: sinks
    attributes: {label: Report to, multiple: true, options: [Hub, Trackio]}
  - type: checkboxes
    id: agreed
    attributes:
      label: Acknowledgement
      options:
        - label: I may use this data.
          required: true
        - label: Publish it.
"""
FORM = parse("goal.yml", TEMPLATE)


def test_body_is_what_github_makes_of_the_answers() -> None:
    answers = {
        "model": ["Qwen/Qwen3-1.7B"], "recipe": ["learning_rate: 1.0e-5\r\nseed: 3\r\n"], "method": ["sft"],
        "sinks": ["Hub", "Trackio"], "agreed": ["I may use this data."],
    }  # fmt: skip
    assert body(FORM, answers) == (
        "### Base model\n\nQwen/Qwen3-1.7B\n\n"
        "### Starting recipe\n\n```yaml\nlearning_rate: 1.0e-5\nseed: 3\n```\n\n"
        "### Notes\n\n_No response_\n\n"
        "### Method\n\nsft\n\n"
        "### Report to\n\nHub, Trackio\n\n"
        "### Acknowledgement\n\n- [x] I may use this data.\n- [ ] Publish it."
    )


def test_empty_answers_say_no_response() -> None:
    assert body(FORM, {}).count("_No response_") == 5
    assert "```" not in body(FORM, {"recipe": ["  \r\n "]})


def test_required_answers_are_asked_for() -> None:
    assert set(missing(FORM, {"model": [" "]})) == {"model", "agreed"}
    assert missing(FORM, {"model": ["x"], "agreed": ["I may use this data."]}) == {}


def test_value_that_was_never_offered_is_refused() -> None:
    answers = {"model": ["x"], "agreed": ["I may use this data."], "method": ["rm -rf"]}
    assert set(missing(FORM, answers)) == {"method"}


def test_form_keeps_title_labels_and_defaults() -> None:
    assert (FORM.name, FORM.title, FORM.labels) == ("Goal", "Raise <model>", ("postdoc", "help wanted"))
    method = next(field for field in FORM.fields if field.id == "method")
    assert method.default == 0
    assert next(field for field in FORM.fields if field.id == "recipe").render == "yaml"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "needs `name`"),
        ("body: []", "asks for nothing"),
        ("body: [{type: video, attributes: {label: x}}]", "unknown type `video`"),
        ("body: [{type: input}]", "needs a `label`"),
        ("body: [{type: dropdown, attributes: {label: x}}]", "`options`"),
        ("body: [3]", "not a mapping"),
        ("x" * 70_000, "longer than"),
        ("[" * 60_000, "nested more than"),
        (BOMB + "body: [{type: input, attributes: {label: *i}}]", "needs a `label`"),
    ],
)
def test_template_that_cannot_be_a_form_says_why(source: str, why: str) -> None:
    with pytest.raises(FormError, match=why):
        parse("goal.yml", source)
