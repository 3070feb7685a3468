"""Goals from the form, from prose and from a file; nonsense gets one list of what to write instead."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.goal_fields import LABELS, rate_of
from bot.conversation.issue_form import ParsedGoal, goal_from_yaml, goal_yaml, parse_goal
from bot.conversation.policy import Policy
from bot.conversation.visible import visible_text
from bot.domain.goal import Budget, Goal
from bot.errors import UserError
from tests.conversation.conftest import make_goal

FORM = Path(__file__).parents[2] / "templates" / "issue_form" / "goal.yml"
KNOWN = ["practice/reverse", "practice/last", "practice/upper", "gsm8k", "gpqa_diamond"]
MODELS = {"postdoc/tiny-qwen3", "Qwen/Qwen3-1.7B"}


def model_exists(name: str) -> str | None:
    return None if name in MODELS else f"There is no model `{name}`: write for example `postdoc/tiny-qwen3`."


def parsed(body: str, title: str = "A goal", policy: Policy | None = None) -> ParsedGoal:
    return parse_goal(title, body, known_benchmarks=KNOWN, model_exists=model_exists, policy=policy)


def form(**values: str) -> str:
    """The body that GitHub makes of our form; a field that is not given has no response."""
    filled = {"base_model": "postdoc/tiny-qwen3", "benchmark": "practice/reverse", "target": "90 %"} | values
    parts = []
    for name, label in LABELS.items():
        value = filled.get(name, "_No response_")
        if name == "recipe" and name in filled:
            value = f"```yaml\n{value}\n```"
        if name == "acknowledgement":
            value = "- [x] I may use this model and this data for training."
        parts.append(f"### {label}\n\n{value}")
    return "\n\n".join(parts)


def goal_of(found: ParsedGoal) -> Goal:
    assert found.goal is not None, found
    return found.goal


def test_labels_are_those_of_the_form_in_its_order() -> None:
    fields = [item for item in yaml.safe_load(FORM.read_text())["body"] if item["type"] != "markdown"]

    assert {item["id"]: item["attributes"]["label"] for item in fields} == LABELS
    assert [item["id"] for item in fields] == list(LABELS)


def test_form_with_required_fields_alone_gets_the_defaults() -> None:
    assert goal_of(parsed(form(), "Raise it")) == Goal(
        title="Raise it", base_model="postdoc/tiny-qwen3", benchmark="practice/reverse", target=0.9
    )


def test_every_field_of_the_form_is_read() -> None:
    found = parsed(
        form(
            base_model="`Qwen/Qwen3-1.7B@1a2b3c4`",
            benchmark="Reverse",
            target="at least 62,5 %",
            metric="Exact match",
            method="sft",
            dataset="data/train.jsonl",
            data_licence="CC-BY-4.0",
            recipe="learning_rate: 2e-5\nmax_length: 2048",
            script="scripts/train.py",
            licences="Apache-2.0, MIT",
            runs="3 runs",
            gpu_hours="1,5",
            usd="$20",
            wall_hours="12 h",
            seed="7",
        )
    )

    assert goal_of(found) == Goal(
        title="A goal",
        base_model="Qwen/Qwen3-1.7B",
        base_revision="1a2b3c4",
        benchmark="practice/reverse",
        target=0.625,
        metric="exact_match",
        method="sft",
        dataset="data/train.jsonl",
        data_licence="cc-by-4.0",
        recipe="learning_rate: 2e-5\nmax_length: 2048\n",
        script="scripts/train.py",
        licences=("apache-2.0", "mit"),
        budget=Budget(usd=20.0, gpu_hours=1.5, runs=3, wall_hours=12.0),
        seed=7,
    )


def test_hand_edited_form_is_read_whatever_its_decoration() -> None:
    body = "#### **Base model:** (required) ##\r\n* postdoc/tiny-qwen3\r\n## benchmark\r\n**practice/reverse**\r\n"

    assert goal_of(parsed(body + "### TARGET\r\n\r\n\r\n> 90%".replace("> ", ""))).target == 0.9


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("90 %", 0.9),
        ("90%", 0.9),
        ("90,3 %", 0.903),
        ("0.9", 0.9),
        ("0,9", 0.9),
        (".9", 0.9),
        ("90", 0.9),
        ("90 percent", 0.9),
        ("1e-1", 0.1),
        ("1 %", 0.01),
        ("100 %", 1.0),
        ("-5 %", -0.05),
        ("1.0", 1.0),
        ("ninety", None),
        ("9/10", None),
        ("NaN", None),
        ("inf", None),
        ("0x10", None),
        ("9" * 40, None),
        ("", None),
    ],
)
def test_rates_are_read_in_every_usual_form(text: str, rate: float | None) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"target": "-5 %"}, "Target `-5 %` is below zero: write a percentage between 0 and 100, for example `90 %`."),
        ({"target": "150 %"}, "is above 100 %: write"),
        ({"target": "0"}, "is reached by anything: write"),
        ({"target": "1"}, "write `1 %` or `100 %`"),
        ({"target": "much better"}, "is not a number: write"),
        ({"target": "_No response_"}, "Target is empty: write"),
        ({"base_model": "_No response_"}, "Base model is empty: write"),
        ({"base_model": "nope/model"}, "There is no model `nope/model`: write"),
        ({"base_model": "../../etc/passwd"}, "is not a model's name: write"),
        ({"base_model": "a b"}, "is not a model's name: write"),
        ({"benchmark": "practise/revers"}, "Did you mean `practice/reverse`?"),
        ({"benchmark": "GPQA"}, "Did you mean `gpqa_diamond`?"),
        ({"benchmark": "zzz"}, "Write one of `practice/reverse`, `practice/last`"),
        ({"benchmark": "gsm8k\npractice/last"}, "has several lines: write a single one"),
        ({"method": "rlhf"}, "write one of sft, dpo"),
        ({"metric": "f1; drop table"}, "is not a name: write"),
        ({"dataset": "/etc/passwd"}, "is absolute: write a path inside this repository"),
        ({"dataset": "../x.jsonl"}, "leaves its folder"),
        ({"dataset": "a/../../x.jsonl"}, "leaves its folder"),
        ({"dataset": "https://example.org/x.jsonl"}, "may not be fetched, because `data.urls`"),
        ({"dataset": "data/$(id).jsonl"}, "characters a path may not have"),
        ({"dataset": ".git/config"}, "characters a path may not have"),
        ({"script": "train.sh"}, "is not a Python file"),
        ({"licences": "apache"}, "did you mean `apache-2.0`?"),
        ({"licences": "other"}, "is not known"),
        ({"runs": "-2"}, "Budget in runs `-2` is below zero: write for example `4`."),
        ({"runs": "1.5"}, "is not a whole number"),
        ({"runs": "0"}, "leaves nothing to do"),
        ({"runs": "99999"}, "above this repository's ceiling of 8 runs: write at most `8`"),
        ({"usd": "1,000,000"}, "above this repository's ceiling of 20 USD"),
        ({"usd": "-1"}, "below zero"),
        ({"gpu_hours": "lots"}, "is not a number: write for example `2`"),
        ({"gpu_hours": "nan"}, "is not a number"),
        ({"wall_hours": "1e9"}, "above this repository's ceiling"),
        ({"seed": "-1"}, "whole number from 0"),
        ({"seed": "x" * 400}, "has 400 characters: write at most 300."),
        ({"recipe": "a: &x 1\nb: *x"}, "Recipe, line 1: Anchors and aliases"),
        ({"recipe": "a: [1, 2]"}, "Recipe, line 1: A value here is a list or a mapping"),
        ({"recipe": "a:\n  b: 1"}, "one plain value per key"),
        ({"recipe": "{learning_rate: 1}"}, "does not stand on a line of its own"),
        ({"recipe": "learning_rate: 1e-3\nlearning_rate: 1e-4"}, "Recipe, line 2: `learning_rate` is set twice"),
        ({"recipe": "learning_rate: fast"}, "Recipe, line 1: `learning_rate` is `fast`, which is not a number"),
        ({"recipe": "a: 1\nlearning_rate: -1"}, "Recipe, line 2: `learning_rate` is `-1`, but must be above 0"),
        ({"recipe": "per_device_train_batch_size: 2.5"}, "must be a whole number"),
        ({"recipe": "max_steps: 1e99"}, "at most 10,000,000"),
        ({"recipe": "warmup_ratio: .inf"}, "is not a finite number"),
        ({"recipe": "learning_rate: true"}, "is not a number"),
        ({"recipe": "packing: maybe"}, "write `true` or `false`"),
        ({"recipe": "output_dir: /tmp"}, "`output_dir` cannot be set"),
        ({"recipe": "hub_token: hf_x"}, "cannot be set"),
        ({"recipe": "!!python/object/apply:os.system ['id']"}, "Tags (`!name`) are not read"),
        ({"recipe": "a: !!binary aGk="}, "Tags (`!name`) are not read"),
        ({"recipe": "a: 1\n---\nb: 2"}, "second document"),
        ({"recipe": "a: 2024-01-32"}, "cannot be read"),
        ({"recipe": "a: 2024-01-01"}, "not one plain value"),
        ({"recipe": "a: " + "9" * 5_000}, "cannot be read"),
        ({"recipe": "just words"}, "not a mapping"),
        ({"recipe": "a: |\n  b\n  c"}, "several lines"),
        ({"recipe": "<<: {a: 1}"}, "list or a mapping"),
        ({"recipe": "\n".join(f"k{i}: 1" for i in range(300))}, "More than 200 keys"),
        ({"recipe": "a: " + "x" * 20_000}, "at most 16,384"),
        ({"recipe": "a: " + "[" * 4_000}, "list or a mapping"),
    ],
)
def test_nonsense_in_a_field_says_what_to_write_instead(values: dict[str, str], problem: str) -> None:
    found = parsed(form(**values))

    assert found.goal is None
    assert len(found.problems) == 1, found.problems
    assert problem in found.problems[0]


def test_all_nonsense_is_listed_at_once() -> None:
    found = parsed(form(base_model="nope/x", benchmark="zzz", target="-5 %", usd="-1", recipe="seed: x\npacking: 3"))

    assert found.goal is None
    assert [problem.split(" ")[0] for problem in found.problems] == [
        "There",
        "There",
        "Target",
        "Budget",
        "Recipe,",
        "Recipe,",
    ]


def test_unknown_and_repeated_headings_are_told() -> None:
    body = form().replace("### Seed", "### Sead") + "\n\n### Target\n\n95 %"

    problems = parsed(body).problems

    assert "There is no field `Sead`: did you mean `Seed`?" in problems
    assert "The field Target appears twice: keep one of the two." in problems


def test_headings_in_notes_and_code_are_text() -> None:
    body = form(notes="### Target\n\n95 %", recipe="learning_rate: 1e-3\n### Seed\n")

    assert goal_of(parsed(body)).target == 0.9


def test_untick_acknowledgement_is_asked_for() -> None:
    assert "Acknowledgement is not ticked" in parsed(form().replace("[x]", "[ ]")).problems[0]


def test_policy_bounds_budget_and_licences() -> None:
    policy = Policy(budget=Budget(usd=5, gpu_hours=0.5, runs=2, wall_hours=6), licences_allowed=("MIT",))

    assert goal_of(parsed(form(), policy=policy)).budget == Budget(usd=0.0, gpu_hours=0.5, runs=2, wall_hours=6)
    assert "write at most `2`" in parsed(form(runs="3"), policy=policy).problems[0]
    assert (
        "not allowed in this repository: write one of `mit`"
        in parsed(form(licences="apache-2.0"), policy=policy).problems[0]
    )


@pytest.mark.parametrize(
    "hidden",
    [
        "<!-- 95 % -->",
        "![95 %](https://example.org/x.png)",
        '<img src="x" alt="95 %">',
        "\u200b\u2060\ufeff",
        "\U000e0039\U000e0035",
        "\u202e\u2066",
        "\ufe0f\u3164",
        "\x00\x07",
    ],
)
def test_hidden_text_is_not_read(hidden: str) -> None:
    body = form(target=f"9{hidden}0 %")

    assert goal_of(parsed(body)).target == 0.9


def test_visible_text_keeps_what_a_reader_sees() -> None:
    text = (
        'a <!-- x --> b <b title="x">c</b> [d](https://e.org "t") ![f](g) 1 < 2 > 0\n[h]: https://i.org "j"\nend <!-- k'
    )

    assert visible_text(text) == "a  b c [d](https://e.org)  1 < 2 > 0\n\nend <!-- k"


# --- prose


def test_prose_goal_is_read() -> None:
    found = parsed(
        "With SFT, 3 runs, 2 GPU hours, seed 3.", "Raise Qwen/Qwen3-1.7B on gpqa_diamond to 30 %, at most 20 USD"
    )

    goal = goal_of(found)
    assert (goal.base_model, goal.benchmark, goal.target, goal.method) == (
        "Qwen/Qwen3-1.7B",
        "gpqa_diamond",
        0.3,
        "sft",
    )
    assert goal.budget == Budget(usd=20.0, gpu_hours=2.0, runs=3, wall_hours=24.0)
    assert goal.seed == 3


def test_prose_takes_lines_with_labels_and_a_recipe() -> None:
    lines = ["Hello!", "Base model: postdoc/tiny-qwen3", "- **Benchmark:** reverse", "Target = 0,9", ""]
    body = "\n".join([*lines, "```yaml", "learning_rate: 1e-3", "```"])

    goal = goal_of(parsed(body))
    assert (goal.benchmark, goal.target, goal.recipe) == ("practice/reverse", 0.9, "learning_rate: 1e-3\n")


def test_prose_distinguishes_where_it_starts_from_where_it_goes() -> None:
    assert goal_of(parsed("Raise postdoc/tiny-qwen3 on gsm8k from 20 % to 30 %")).target == 0.3


def test_prose_that_lacks_something_is_asked_precisely() -> None:
    found = parsed("Please train something nice.", "Help")

    assert (found.goal, found.problems) == (None, [])
    assert [question.split("`")[1].split(":")[0] for question in found.questions] == [
        "Base model",
        "Benchmark",
        "Target",
    ]


def test_prose_that_says_two_things_is_asked_which() -> None:
    found = parsed("Raise postdoc/tiny-qwen3 on reverse and on gsm8k to 50 %")

    assert found.goal is None
    assert found.questions == [
        "The text names several values (`practice/reverse`, `gsm8k`). Add the one meant: `Benchmark: practice/reverse`."
    ]


def test_quotes_and_comments_in_prose_are_not_the_authors_words() -> None:
    body = "> Raise Qwen/Qwen3-1.7B to 99 %\n\n<!-- to 98 % -->\nRaise postdoc/tiny-qwen3 on gsm8k to 50 %"

    goal = goal_of(parsed(body))
    assert (goal.base_model, goal.target) == ("postdoc/tiny-qwen3", 0.5)


def test_title_is_text_only() -> None:
    title = "Raise\u202e <!-- x --> $(id) `rm -rf /` @alice " + "y" * 400

    goal = goal_of(parsed(form(), title))
    assert goal.title.startswith("Raise $(id) `rm -rf /` @alice y")
    assert len(goal.title) <= 200


@pytest.mark.parametrize(
    "pattern",
    [
        "### Target\n\n90 %\n\n",
        "### a\n",
        "```\n",
        "a: b\n",
        "to 9",
        "1,",
        "$1",
        "at least ",
        "[",
        "![a](",
        "<!--",
        "<a",
        "on ",
        "x/1 ",
        "a@",
        "9 %",
        "&a ",
        "\u200b",
        "- ",
        "x.jsonl ",
        "A1b",
        "0.",
        "   a",
        "\ufdfa",
        "z",
        "![",
        "seed ",
    ],
)
@pytest.mark.parametrize(
    "before", ["", "### Base model\n\na\n### Target\n\n", "### Base model\n\na\n### Starting recipe\n\n```yaml\n"]
)
def test_longest_issue_is_read_within_bounded_time(pattern: str, before: str) -> None:
    body = (before + pattern * 65_536)[:65_536]
    started = time.process_time()

    found = parsed(body, body[:256])

    # The slowest takes 0.2 s; quadratic work on 65,536 characters takes minutes.
    assert time.process_time() - started < 5
    assert found.goal is None
    assert 0 < len(found.problems) + len(found.questions) <= 25


@given(st.text(max_size=300), st.text(alphabet="#` \n:-%0123456789.,TargetBasemodlRecip&*[]{}<>!é\u200b", max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_issue_raises_and_every_answer_is_whole(title: str, body: str) -> None:
    for text in (body, f"### Target\n{body}\n### Base model\n{title}", form(recipe=body), form(target=body, usd=title)):
        found = parsed(text, title)
        assert (found.goal is None) == bool(found.problems or found.questions)


# --- goal.yaml


def test_goal_file_gives_the_same_goal_back() -> None:
    goal = make_goal(base_revision="v1.0", method="sft", dataset="data/x.jsonl", script="train.py", title="a: 'b' #c")

    assert goal_from_yaml(goal_yaml(goal)) == goal


@given(
    st.floats(min_value=1e-6, max_value=1.0),
    st.floats(min_value=0, max_value=1e5),
    st.integers(min_value=1, max_value=1000),
    st.integers(min_value=0, max_value=2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_goal_file_keeps_every_number(target: float, gpu_hours: float, runs: int, seed: int) -> None:
    goal = make_goal(target=target, seed=seed, budget=Budget(usd=gpu_hours / 7, gpu_hours=gpu_hours, runs=runs))

    assert goal_from_yaml(goal_yaml(goal)).hash == goal.hash


def test_goal_file_written_by_hand_may_use_percentages_and_leave_out_the_rest() -> None:
    goal = goal_from_yaml(
        "base_model: postdoc/tiny-qwen3\nbenchmark: practice/reverse\ntarget: 90 %\nbudget: {runs: 2}\n"
    )

    assert (goal.target, goal.budget.runs) == (0.9, 2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["Base model is empty", "Benchmark is empty", "Target is empty"]),
        (
            "target: 2e9\nbudget: 3\ncolour: red",
            ["`budget` holds", "There is no field `colour`", "Target", "above 100 %"],
        ),
        ("a: &x [*x]", ["1:4 Anchors"]),
        ("- 1", ["1:1 This is not a mapping"]),
        ("target: {a: 1}", ["`target` must be a single value"]),
        ("budget: {fuel: 3}", ["There is no field `budget.fuel`"]),
    ],
)
def test_goal_file_with_nonsense_lists_all_of_it(text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        goal_from_yaml(text, known_benchmarks=KNOWN, model_exists=model_exists)

    for part in parts:
        assert part in str(caught.value)


def test_goal_has_no_field_that_the_file_forgets() -> None:
    values: dict[str, Any] = yaml.safe_load(
        goal_yaml(make_goal(method="sft", dataset="d.jsonl", data_licence="mit", script="s.py", forgetting="block"))
    )

    assert set(values) == {field.name for field in dataclasses.fields(Goal)}
    assert set(values["budget"]) == {field.name for field in dataclasses.fields(Budget)}


URLS = Policy(data_urls=("https://data.example.org/sets/",))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("hf:acme/sums", "hf:acme/sums"),
        ("`hf:acme/sums@v1.0/data/train.parquet`", "hf:acme/sums@v1.0/data/train.parquet"),
        ("hf://datasets/acme/sums@refs/convert/parquet/default", "hf:acme/sums@refs/convert/parquet/default"),
        ("https://huggingface.co/datasets/acme/sums", "hf:acme/sums"),
        ("https://huggingface.co/datasets/acme/sums/tree/main/data", "hf:acme/sums@main/data"),
        ("https://huggingface.co/datasets/acme/sums/viewer/default/train", "hf:acme/sums"),
        ("<https://data.example.org/sets/rows.jsonl>", "https://data.example.org/sets/rows.jsonl"),
        ("data/rows.parquet", "data/rows.parquet"),
    ],
)
def test_data_is_understood_in_every_usual_way_in_form_and_prose(written: str, read: str) -> None:
    assert goal_of(parsed(form(dataset=written, data_licence="mit"), policy=URLS)).dataset == read
    prose = f"Raise Qwen/Qwen3-1.7B on gsm8k to 60 % with {written.strip('`')}.\n\nData licence: MIT\n"
    goal = goal_of(parsed(prose, policy=URLS))
    assert (goal.base_model, goal.dataset, goal.data_licence) == ("Qwen/Qwen3-1.7B", read, "mit")


def test_prose_may_name_a_models_page_a_paper_and_a_benchmark_file() -> None:
    found = parsed(
        "Following https://arxiv.org/abs/2501.00001, raise https://huggingface.co/Qwen/Qwen3-1.7B on "
        "benchmarks/ours.yaml to 60 %."
    )

    goal = goal_of(found)
    assert (goal.base_model, goal.benchmark, goal.dataset) == ("Qwen/Qwen3-1.7B", "benchmarks/ours.yaml", None)


def test_prose_with_two_data_sets_is_asked_which() -> None:
    found = parsed("Raise Qwen/Qwen3-1.7B on gsm8k to 60 % with hf:acme/a or hf:acme/b.")

    assert found.goal is None
    assert found.questions == [
        "The text names several values (`hf:acme/a`, `hf:acme/b`). Add the one meant: `Training data: hf:acme/a`."
    ]


def test_address_needs_a_licence_and_a_place_that_policy_allows() -> None:
    assert "`Licence of the data: cc-by-4.0`" in parsed(
        form(dataset="https://data.example.org/sets/a.jsonl"), policy=URLS
    ).problems[0]  # fmt: skip
    for address in (
        "https://data.example.org/sets-too/a.jsonl",
        "https://data.example.org:8443/sets/a.jsonl",
        "https://evil.example.org/sets/a.jsonl",
        "https://data.example.org.evil.org/sets/a.jsonl",
        "https://data.example.org/a.jsonl",
    ):
        found = parsed(form(dataset=address, data_licence="mit"), policy=URLS)
        assert "lies in none of the places" in found.problems[0]


@settings(max_examples=150, deadline=None)
@given(
    dataset=st.one_of(
        st.text(max_size=60),
        st.from_regex(r"(hf:|hf://datasets/|https://huggingface.co/datasets/|https://[a-z.]{1,9}/)[ -~]{0,60}"),
    ),
    benchmark=st.one_of(st.text(max_size=30), st.from_regex(r"[ -~]{0,20}\.ya?ml")),
)
def test_no_data_or_benchmark_raises_and_what_is_read_is_what_is_written_down(dataset: str, benchmark: str) -> None:
    policy = Policy(data_urls=("https://a/",))
    for body in (
        form(dataset=dataset, data_licence="mit", benchmark=benchmark),
        f"Raise Qwen/Qwen3-1.7B on {benchmark} to 60 % with {dataset}",
    ):
        found = parsed(body, policy=policy)
        assert (found.goal is None) == bool(found.problems or found.questions)
        if found.goal is not None:
            assert goal_from_yaml(goal_yaml(found.goal)).hash == found.goal.hash
            source = found.goal.dataset
            assert source is None or not any(part in ("..", ".") for part in source.split("/"))
            assert found.goal.benchmark in KNOWN or found.goal.benchmark.lower().endswith((".yaml", ".yml"))
            assert ".." not in found.goal.benchmark.split("/") and not found.goal.benchmark.startswith("/")


@pytest.mark.parametrize(
    ("metric", "target", "value"),
    [("perplexity", "25", 25.0), ("wer", "12 %", 0.12), ("bits_per_byte", "at most 1,1", 1.1), ("cer", "0.05", 0.05)],
)
def test_target_is_read_as_its_metric_has_it(metric: str, target: str, value: float) -> None:
    text = f"base_model: acme/model\nbenchmark: prose\nmetric: {metric}\ntarget: '{target}'\n"
    goal = goal_from_yaml(text)
    assert (goal.metric, goal.target) == (metric, value)
    assert goal_from_yaml(goal_yaml(goal)) == goal
    without = "".join(line + "\n" for line in text.splitlines() if not line.startswith("metric"))
    assert goal_from_yaml(without, metric_of=lambda name: metric).target == value


@pytest.mark.parametrize(
    ("metric", "target", "words"),
    [
        ("perplexity", "25 %", "is not a value of perplexity: write a number above 1, for example `25`"),
        ("perplexity", "1", "cannot be reached by anything"),
        ("wer", "0 %", "leaves wer no room for a single error: write a percentage between 0 and 100"),
        ("accuracy", "25", None),
        ("bleu", "25", "Metric `bleu` is not known: write one of exact_match, pass_at_1"),
    ],
)
def test_target_of_another_kind_is_refused_with_an_example(metric: str, target: str, words: str | None) -> None:
    text = f"base_model: acme/model\nbenchmark: prose\nmetric: {metric}\ntarget: '{target}'\n"
    if words is None:
        assert goal_from_yaml(text).target == 0.25
        return
    with pytest.raises(UserError) as caught:
        goal_from_yaml(text, policy=Policy())
    assert words in str(caught.value)


def test_sentence_that_names_a_perplexity_is_read() -> None:
    said = "Lower acme/tiny-gpt2 on prose to a perplexity below 25, with pretraining."
    found = parse_goal("Perplexity", said, known_benchmarks=["prose"], model_exists=lambda name: None)
    assert found.goal is not None, found
    assert (found.goal.metric, found.goal.target) == ("perplexity", 25.0)
