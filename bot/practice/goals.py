"""The demo's team, its repository and its two goals.

Both goals fall short at first, each for a reason that teams meet every day, and both say nothing of it: the first
brings a recipe from the card of a model twenty thousand times larger, the second brings data that repeats itself.
What is wrong is found by the bot from numbers, not from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.domain.goal import Goal
from bot.errors import UserError
from bot.evaluation.tasks import repetitive_rows, training_rows
from bot.practice.pages import issue_form
from bot.practice.world import Person, Place

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
FORM_PATH = ".github/ISSUE_TEMPLATE/goal.yml"
ACKNOWLEDGED = "I may use this model and this data for training."

MAINTAINER = Person("maya", "Maya Okafor", "admin")
WRITER = Person("tomas", "Tomas Lindqvist", "write")
READER = Person("lin", "Lin Zhao", "read")

GRANTED_RUNS, GRANTED_HOURS = 8, 2
REVERSE_ROWS = 2000


@dataclass(frozen=True, slots=True)
class DemoGoal:
    """One goal as a person fills it into the form."""

    number: int
    title: str
    benchmark: str
    target: float
    answers: Mapping[str, str]
    """Field of the issue form -> what is written there."""
    teaser: str
    """One sentence for the terminal: what to look out for."""


# Full fine-tuning as the Zephyr-7B card has it (there warmup_steps is still called warmup_ratio):
# https://github.com/huggingface/alignment-handbook/blob/main/recipes/zephyr-7b-beta/sft/config_full.yaml
RECIPE_OF_A_7B_CARD = """\
learning_rate: 2.0e-05
lr_scheduler_type: cosine
warmup_steps: 0.1
num_train_epochs: 1
per_device_train_batch_size: 16
max_length: 2048"""

# Settings that suit the base model, and a cap on rows that is reached by repetitions alone.
RECIPE_THAT_KEEPS_REPETITIONS = """\
data_deduplicate: false
data_max_rows: 800
learning_rate: 3.0e-03
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 100
per_device_train_batch_size: 32
max_length: 256"""


def demo_goals(seed: int) -> dict[int, DemoGoal]:
    """The goals of `postdoc demo --goal N`."""
    common = {"base_model": "postdoc/tiny-qwen3", "runs": "4", "gpu_hours": "0.5", "usd": "0", "seed": str(seed)}
    first = DemoGoal(
        number=1,
        title="Raise exact match on practice/reverse to 90 %",
        benchmark="practice/reverse",
        target=0.9,
        answers=common
        | {
            "benchmark": "practice/reverse",
            "target": "90 %",
            "dataset": "data/reverse",
            "recipe": RECIPE_OF_A_7B_CARD,
            "notes": "The recipe is from the card of a 7B model that we like. It may need a change for a small one.",
        },
        teaser="The goal brings a recipe copied from the card of a 7B model.",
    )
    second = DemoGoal(
        number=2,
        title="Raise exact match on practice/json to 90 %",
        benchmark="practice/json",
        target=0.9,
        answers=common
        | {
            "benchmark": "practice/json",
            "target": "90 %",
            "dataset": "data/json",
            "recipe": RECIPE_THAT_KEEPS_REPETITIONS,
            "notes": "The data is a log of real requests, the settings are what we always use.",
        },
        teaser="The goal brings a log of real requests as its data, and the settings that the team always uses.",
    )
    return {1: first, 2: second}


def issue_of(answers: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """(the Markdown that GitHub makes of the filled form, the form's labels).

    Raises: UserError for an answer that the form does not take.
    """
    form = issue_form.parse(FORM_PATH, (TEMPLATES / "issue_form" / "goal.yml").read_text(encoding="utf-8"))
    filled: dict[str, Sequence[str]] = {name: [text] for name, text in answers.items()}
    filled["acknowledgement"] = [ACKNOWLEDGED]
    problems = issue_form.missing(form, filled)
    if problems:
        raise UserError(" ".join(problems.values()))
    return issue_form.body(form, filled), form.labels


def answers_of(goal: Goal) -> dict[str, str]:
    """A goal as a person would fill it into the form."""
    revision = "" if goal.base_revision == "main" else f"@{goal.base_revision}"
    filled = {
        "base_model": goal.base_model + revision,
        "benchmark": goal.benchmark,
        "target": goal.said_target,
        "metric": goal.metric,
        "method": goal.method,
        "dataset": goal.dataset,
        "data_licence": goal.data_licence,
        "recipe": goal.recipe,
        "script": goal.script,
        "licences": ", ".join(goal.licences),
        "runs": str(goal.budget.runs),
        "gpu_hours": f"{goal.budget.gpu_hours:g}",
        "usd": f"{goal.budget.usd:g}",
        "wall_hours": f"{goal.budget.wall_hours:g}",
        "seed": str(goal.seed),
        "forgetting": goal.forgetting if goal.forgetting != "report" else "",
    }
    return {name: text for name, text in filled.items() if text}


def practice_place(seed: int) -> Place:
    """`acme/tiny-speller`: a maintainer, a writer who opens goals, somebody who may only read, and their data."""
    files: dict[str, bytes | str] = {
        "README.md": _README,
        "LICENSE": _LICENSE,
        FORM_PATH: (TEMPLATES / "issue_form" / "goal.yml").read_bytes(),
        ".github/postdoc.yml": practice_policy(),
        "data/README.md": "# Training data\n\nOne folder for each skill, each with its own card and licence.\n",
        "data/reverse/README.md": _card("reverse", "Words and their mirror images.", "1K<n<10K"),
        "data/reverse/train.jsonl": _jsonl(training_rows("reverse", REVERSE_ROWS, seed)),
        "data/json/README.md": _card("json", "Requests for a JSON object, as they were logged.", "1K<n<10K"),
        "data/json/train.jsonl": _jsonl(repetitive_rows("json", seed)),
    }
    return Place(
        owner="acme",
        repository="tiny-speller",
        people=(MAINTAINER, WRITER, READER),
        files=files,
        description="A very small language model that spells.",
    )


def practice_policy() -> str:
    """templates/postdoc.yml with a grant, so that nobody has to be asked in the demo."""
    text = (TEMPLATES / "postdoc.yml").read_text(encoding="utf-8")
    zeros = "    runs: 0\n    gpu_hours: 0\n    usd: 0\n"
    assert zeros in text, "the policy template has changed its auto_approve block"
    return text.replace(zeros, f"    runs: {GRANTED_RUNS}\n    gpu_hours: {GRANTED_HOURS}\n    usd: 0\n")


def _jsonl(rows: Sequence[Mapping[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _card(task: str, what: str, size: str) -> str:
    return f"""---
license: apache-2.0
language: []
task_categories:
- text-generation
size_categories:
- {size}
---

# {task}

{what} Made by our own generator; nobody's personal data is in it.
`train.jsonl` holds one JSON object per line.
"""


_README = """\
# tiny-speller

A very small language model that spells: it reverses words, writes them in capitals, picks the last one.

Goals for the model are issues. [Open one](../../issues/new/choose) and Postdoc answers with a pull request.
Training data lies in `data/`, one folder for each skill.
"""

_LICENSE = """\
Copyright 2026 the tiny-speller authors

Licensed under the Apache License, Version 2.0 (the "License"); you may not use this repository except in compliance
with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on an
"AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the
specific language governing permissions and limitations under the License.
"""
