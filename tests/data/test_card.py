from __future__ import annotations

from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from bot.data.audit import audit
from bot.data.card import code, dataset_card, evaluation_line, plain, prose, report_card, size_category
from bot.data.licences import Licence, licence_of_card
from bot.data.rows import Item
from bot.data.scan import scan
from bot.domain.goal import Goal

ROWS = [{"prompt": f"reverse ab{n}", "completion": f"{n}ba"} for n in range(50)]
BUILD = {
    "sources": [{"path": "data/rows.jsonl", "rows": 53, "sha256": "ab" * 32}],
    "rows": 50,
    "validation_rows": 5,
    "dropped": {"empty prompt": 3},
    "columns": {"prompt": "question", "completion": "answer"},
    "sha256": "cd" * 32,
}
GOAL = Goal("Raise reverse", "postdoc/tiny-qwen3", "practice/reverse", 0.9, method="sft")
EVALUATION = {
    "benchmark": "practice/reverse", "harness_digest": "d", "model": "m", "metric": "exact_match", "value": 0.415,
    "standard_error": 0.0348, "n": 200, "split": "dev",
}  # fmt: skip
COMPARISON = {
    "difference": 0.02, "ci_low": -0.01, "ci_high": 0.05, "p_value": 0.23, "n": 200, "discordant": [3, 7],
    "verdict": "cannot tell", "minimum_detectable": 0.07, "n_needed": 1830,
}  # fmt: skip
CONTEXT: dict[str, Any] = {
    "goal": GOAL.as_dict(),
    "state": "exhausted",
    "state_reason": "The ceiling of 2 runs is used up.",
    "issue": "https://github.com/a/b/issues/1",
    "pull_request": "#2",
    "baseline": EVALUATION | {"value": 0.0, "standard_error": 0.0},
    "best": {"run": 2, "evaluation": EVALUATION, "comparison": COMPARISON},
    "confirmation": {
        "evaluation": EVALUATION | {"split": "sealed"},
        "confirmed": False,
        "lower_bound": 0.36,
        "reason": "41.5 % does not reach the target of 90.0 %.",
    },
    "runs": [
        {"n": 1, "method": "sft", "value": 0.3, "interval": (0.241, 0.367), "n_items": 200, "verdict": "better",
         "symptoms": ["plateau", "truncation"], "changed": None, "seconds": 12.3},
        {"n": 2, "method": "sft", "value": None, "changed": [{"key": "learning_rate", "before": 2e-5, "after": 3e-3}]},
    ],
    "model": {"path": "/data/m", "visibility": "private", "load": 'AutoModelForCausalLM.from_pretrained("/data/m")'},
    "model_licence": "Apache 2.0",
    "licences": [{"what": "base model", "identifier": "apache-2.0", "source": "README.md", "cautions": ["Beware."]}],
    "contamination": scan(ROWS, [Item("x", "reverse zzz", "zzz")]),
    "reproduce": "postdoc reproduce runs/02",
    "spend": {"usd": 0.5, "gpu_hours": 0.01, "runs": 2, "wall_hours": 0.1},
    "provenance": {"harness_digest": "d", "seed": 0},
}  # fmt: skip


def front_of(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card[4:].split("\n---\n")[0])


def test_dataset_card_front_matter_is_the_hubs():
    front = front_of(dataset_card(BUILD, licence=Licence("mit", "README.md"), title="Rows: a test", languages=["en"]))
    assert front["license"] == "mit"
    assert front["size_categories"] == ["n<1K"]
    assert front["task_categories"] == ["text-generation"]
    assert front["language"] == ["en"]
    assert front["pretty_name"] == "Rows: a test"
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "train.jsonl"},
        {"split": "validation", "path": "validation.jsonl"},
    ]


def test_dataset_card_says_what_was_measured():
    card = dataset_card(BUILD, scan=CONTEXT["contamination"], audit=audit(ROWS), licence="cc-by-nc-4.0")
    for sentence in (
        "50 training rows and 5 validation rows",
        "| `data/rows.jsonl` | 53 | `abababababababab` |",
        "| empty prompt | 3 |",
        "`question` as prompt, `answer` as completion",
        "Verdict: **clean**. 50 training rows were scanned against 1 evaluation items: 0 overlap",
        "50 prompts are distinct, 0 rows repeat an earlier one exactly",
        "The licence of the dataset is `cc-by-nc-4.0`.",
        "forbids commercial use",
        "Rows are not shown here, because the data is private.",
    ):
        assert sentence in card


def test_dataset_card_from_stored_dictionaries_is_the_same_but_for_the_item_count():
    live = dataset_card(BUILD, scan=CONTEXT["contamination"], audit=audit(ROWS))
    stored = dataset_card(BUILD, scan=CONTEXT["contamination"].as_dict(), audit=audit(ROWS).as_dict())
    assert stored == live.replace(" against 1 evaluation items", "")


def test_dataset_card_of_nothing_measured_says_so():
    card = dataset_card({"rows": 0})
    for sentence in (
        "No source was recorded",
        "Not scanned",
        "were not measured",
        "licence of the dataset is not known",
    ):
        assert sentence in card
    assert "`license: apache-2.0`" in card
    assert front_of(card)["license"] == "unknown"


def test_examples_are_shown_only_when_the_data_is_public():
    shown = dataset_card(BUILD, private=False, examples=["reverse ab → ba"])
    assert "reverse ab → ba" in shown
    assert "reverse ab → ba" not in dataset_card(BUILD, private=True, examples=["reverse ab → ba"])


def test_card_that_this_writes_is_read_back():
    assert licence_of_card(dataset_card(BUILD, licence="llama3.1")) == "llama3.1"
    assert licence_of_card(dataset_card(BUILD, licence="house rules")) == "house-rules"


def test_report_front_matter_is_a_model_card():
    front = front_of(report_card(CONTEXT))
    assert front["base_model"] == "postdoc/tiny-qwen3"
    assert (front["license"], front["metrics"], front["tags"]) == ("apache-2.0", ["exact_match"], ["postdoc", "sft"])
    result = front["model-index"][0]["results"][0]
    assert result["dataset"] == {"type": "practice/reverse", "name": "practice/reverse", "split": "sealed"}
    assert result["metrics"] == [{"type": "exact_match", "value": 41.5, "name": "exact_match (%)"}]


def test_hub_library_reads_both_cards():
    hub = pytest.importorskip("huggingface_hub")
    model = hub.ModelCard(report_card(CONTEXT)).data
    assert model.eval_results[0].metric_value == 41.5
    assert model.base_model == "postdoc/tiny-qwen3"
    assert hub.DatasetCard(dataset_card(BUILD, licence="mit")).data.license == "mit"


def test_report_says_result_with_n_interval_and_verdict():
    report = report_card(CONTEXT)
    for sentence in (
        "**exhausted**: The ceiling of 2 runs is used up.",
        "Raise `exact_match` of `postdoc/tiny-qwen3` (revision `main`) on `practice/reverse` to 90.0 %",
        "at most 0.00 USD, 1 h of job time, 4 training runs, 24 h in all",
        "Untouched base model: 0.0 % (95 % interval 0.0 to 1.9, n = 200, dev)",
        "Best run (2): 41.5 % (95 % interval 34.9 to 48.4, n = 200, dev)",
        "**cannot tell**, +2.0 points (95 % interval -1.0 to +5.0, p = 0.23;",
        "telling this one apart needs about 1,830 items",
        "**Not confirmed**: 41.5 % does not reach",
        "| 1 | sft |  | 30.0 % (24.1 to 36.7, n = 200) | better | plateau, truncation | 12 s |",
        "| 2 | sft | `learning_rate`: `2e-05` → `0.003` | no value |",
        'AutoModelForCausalLM.from_pretrained("/data/m")',
        "Verdict: **clean**",
        "- Beware.",
        "postdoc reproduce runs/02",
        "Spent: 0.50 USD, 36 s of job time",
        "| harness\\_digest | `d` |",
    ):
        assert sentence in report


def test_report_before_anything_ran_says_what_is_missing():
    report = report_card({"goal": GOAL.as_dict(), "state": "baseline"})
    for sentence in (
        "base model has not been evaluated", "No run has been evaluated", "nothing is confirmed", "No run has ended",
        "There is no model to load yet", "has not been scanned", "Not measured: variation between training seeds",
    ):  # fmt: skip
        assert sentence in report


def test_report_ends_without_a_draft_of_the_matched_words():
    dirty = scan([{"prompt": "reverse zzz"}], [Item("x", "reverse zzz", "zzz")])
    report = report_card(CONTEXT | {"contamination": dirty.as_dict()})
    assert "Verdict: **contaminated**" in report and "1 overlap" in report
    assert "zzz" not in report


HOSTILE = [
    "title\n---\nlicense: mit\n---\n",
    "<script>alert(1)</script><!-- postdoc:key -->",
    "[click](https://evil.example/x) ![pixel](https://evil.example/y.png)",
    "@everyone look at #1 and octo/repo#2 and GH-3 on www.evil.example",
    "a | b | c `code` ``` fence",
    "{{ goal }} {% include 'x' %} ${{ secrets.TOKEN }}",
    "# heading",
    "1. item",
    "- item",
    "\x00\x1b[31m\u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_stay_text(text):
    goal = GOAL.as_dict() | {"title": text, "base_model": text, "benchmark": text}
    provenance = {text: text}
    run = {"n": 1, "method": text, "value": None, "symptoms": [text], "changed": text}
    report = report_card(
        CONTEXT | {"goal": goal, "provenance": provenance, "runs": [run], "issue": text, "state_reason": text}
    )
    assert set(front_of(report)) == set(front_of(report_card(CONTEXT)))
    assert front_of(report)["base_model"] == text or not text.isprintable()
    body = report.split("\n---\n", 1)[1]
    assert body.count("\n## ") == report_card(CONTEXT).count("\n## ")
    html = MarkdownIt("commonmark", {"linkify": False}).enable("table").render(body)
    for active in ("<script", "<!--", "<a href", "<img", "@everyone", "#1 ", "repo#2", "GH-3", "https://evil", "www."):
        # Inside code nothing is linked, mentioned or run.
        outside = "".join(piece.split("</code>")[-1] for piece in html.split("<code"))
        assert active not in outside
    table = next(piece for piece in html.split("<table>") if "symptoms" in piece)
    assert table.count("<td") == 7


def test_plain_code_and_prose():
    assert plain("a_b *c*") == "a\\_b \\*c\\*"
    assert plain("41.5 % of 3-4") == "41.5 % of 3-4"
    assert code("a`b") == "`a'b`"
    assert code("") == ""
    assert prose("Change `a_b` to *x*") == "Change `a_b` to \\*x\\*"
    assert prose("an odd ` tick") == "an odd \\` tick"


@pytest.mark.parametrize(("rows", "name"), [(0, "n<1K"), (1000, "1K<n<10K"), (10**7, "n>10M")])
def test_size_category(rows, name):
    assert size_category(rows) == name


def test_evaluation_line_of_graded_scores_uses_their_error():
    line = evaluation_line(EVALUATION | {"value": 0.5001, "standard_error": 0.1, "n": 10})
    assert line == "50.0 % (95 % interval 27.4 to 72.6, n = 10, dev)"


def test_card_counts_what_was_generated_at_each_stage() -> None:
    card = {
        "generator": "runs/02 | <b>",
        "seed": 7,
        "new_prompts": True,
        "verified_by": ["votes: 0.6 of 5 agree"],
        "stages": {"wanted": 1000, "drafted": 2000, "in_the_form": 1900, "verified": 1500},
        "rejected": {"repeats a prompt": 100},
        "strata": {"reverse": {"real": 60, "verified": 1500, "target": 540, "used": 540, "most_repeats": 1}},
        "synthetic_share": {"wanted": 0.9, "reached": 0.9},
        "rows": {"real": 60, "synthetic": 540},
        "sha256": "ef" * 32,
    }
    text = dataset_card(BUILD, synthetic=card)
    assert "Training saw 540 of them beside 60 real rows: a share of 90.0 %" in text
    assert "| in the form | 1,900 |" in text and "| repeats a prompt | 100 |" in text
    assert "| `reverse` | 60 | 1,500 | 540 | 1 |" in text
    assert "synthetic" in yaml.safe_load(text.split("---")[1])["tags"]
    assert "<b>" not in MarkdownIt().render(text.split("---", 2)[2]), "the generator's name is shown, not obeyed"
    assert "Synthetic rows" not in dataset_card(BUILD)


LINEAGE = {
    "verdict": "descends", "reason": "35 of 35 tensors changed.", "compared_with": 2,
    "changes": [{"file": "generation_config.json", "key": "eos_token_id", "before": "2", "after": None}],
}  # fmt: skip
TOGETHER = {
    "answer": "allowed", "reason": "The licences go together.", "output": "llama3.1", "name_begins": "Llama",
    "shown": ["Built with Llama"], "duties": ["The base model is under `llama3.1`. Hand on the agreement."],
}  # fmt: skip


def test_report_says_where_the_weights_come_from_and_what_the_licences_ask():
    report = report_card(CONTEXT | {"lineage": LINEAGE, "combination": TOGETHER, "model_licence": TOGETHER["output"]})
    for sentence in (
        "Run 2: **descends**. 35 of 35 tensors changed. Held against 2 published models.",
        "Changed beside the weights: `generation_config.json`, `eos_token_id`: `2` became `nothing`",
        "**Built with Llama**",
        "- The base model is under `llama3.1`. Hand on the agreement.",
    ):
        assert sentence in report
    assert front_of(report)["license"] == "llama3.1"
    unchecked = report_card(CONTEXT | {"lineage": {"error": "its model is not on this machine"}})
    assert "Not checked: its model is not on this machine." in unchecked


def test_several_licences_that_all_bind_are_named_as_the_hub_wants_it():
    front = front_of(report_card(CONTEXT | {"model_licence": "llama3.1 and cc-by-nc-4.0"}))
    assert (front["license"], front["license_name"]) == ("other", "llama3.1-and-cc-by-nc-4.0")


def test_cards_name_the_languages_of_the_data_and_warn_where_the_benchmark_has_another():
    german = "Das ist ein Satz, der nicht sehr lang ist, und er wird noch ein wenig länger mit {}."
    english = "This is a sentence that is not very long, and it was made for you with {}."
    rows = [{"prompt": (german if n % 10 else english).format(n), "completion": str(n)} for n in range(60)]
    found = audit(rows)
    assert found.languages == {"de": 0.9, "en": 0.1}
    card = dataset_card(BUILD, audit=found, asked_in={"fr": 1.0})
    assert front_of(card)["language"] == ["de", "en"]
    assert "de 90.0 %, en 10.0 %" in card and "**The benchmark's items are in fr" in card
    assert "The benchmark's items" not in dataset_card(BUILD, audit=found, asked_in={"de": 1.0})
    report = report_card(CONTEXT | {"languages": found.languages, "asked_in": {"fr": 0.9, "en": 0.1}})
    assert front_of(report)["language"] == ["de", "en"] and "**The benchmark's items are in fr" in report
    assert "language" not in front_of(report_card(CONTEXT))


def test_energy_is_said_as_an_estimate_with_what_it_rests_on():
    energy = {"kwh": 1.4, "hours": 2.0, "gpus": 1, "gpu": "H100", "watts": 700}
    report = report_card(CONTEXT | {"energy": energy})
    assert "about 1.4 kWh, an estimate: 2:00:00 of job time on 1 × H100 at the 700 W" in report
    assert "Energy: not estimated" in report_card(CONTEXT)
