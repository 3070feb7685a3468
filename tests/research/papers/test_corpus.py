"""The test papers: that they are whole, that what is expected stands in them, and that the scoring can fail."""

import re

import pytest

from tests.research.papers.scoring import (
    CORPUS,
    FRESH,
    KEYS,
    LATER,
    LATEST,
    UNSEEN,
    canonical,
    latex_archive,
    papers,
    same_value,
    score,
    wilson,
)

FORMATS = {
    CORPUS: {"arxiv_html": 5, "ar5iv_html": 2, "latex": 4, "pdf": 3},
    UNSEEN: {"arxiv_html": 2, "ar5iv_html": 1, "latex": 2, "pdf": 1},
    FRESH: {"arxiv_html": 3, "ar5iv_html": 1, "latex": 3, "pdf": 1},
    LATER: {"arxiv_html": 2, "ar5iv_html": 1, "latex": 2, "pdf": 1},
    LATEST: {"arxiv_html": 2, "ar5iv_html": 1, "latex": 2, "pdf": 1},
}
PAPERS = {name: paper for held in FORMATS for name, paper in papers(held).items()}
HELD = {name: held for held in FORMATS for name in papers(held)}


def _source(name: str) -> str:
    files = sorted((HELD[name] / name / "source").rglob("*"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]{4,}", text)


@pytest.mark.parametrize("held", FORMATS, ids=lambda held: held.name)
def test_a_folder_has_its_formats(held):
    counted = {form: sum(paper["format"] == form for paper in papers(held).values()) for form in FORMATS[held]}
    assert counted == FORMATS[held]


def test_no_paper_is_held_twice():
    assert len(PAPERS) == sum(len(papers(held)) for held in FORMATS)
    assert len({paper["id"] for paper in PAPERS.values()}) == len(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_whole(name):
    paper = PAPERS[name]
    opening = {
        "arxiv_html": b"<!DOCTYPE html>",
        "ar5iv_html": b"<!DOCTYPE html>",
        "latex": b"\\documentclass",
        "pdf": b"%PDF-",
    }
    assert (HELD[name] / name / paper["file"]).read_bytes().startswith(opening[paper["format"]])
    assert len(paper["hyperparameters"]) >= 8
    assert paper["traps"] and paper["results"] and paper["stages"] and paper["models"]
    stages = {stage["name"] for stage in paper["stages"]}
    models = {model["name"] for model in paper["models"]}
    for entry in [*paper["hyperparameters"], *paper["ambiguous"], *paper["traps"]]:
        assert entry.get("stage", next(iter(stages))) in stages
        assert canonical(entry["key"], 0)[0] in KEYS or entry["key"] in ("lmbda", "min_lr_rate"), entry
    assert all(entry.get("model", next(iter(models))) in models for entry in paper["hyperparameters"])
    places = [(entry["stage"], entry.get("model"), entry["key"]) for entry in paper["hyperparameters"]]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", PAPERS)
def test_quotes_stand_in_the_paper(name):
    said = " ".join(_words(_source(name)))
    for entry in PAPERS[name]["hyperparameters"]:
        for word in _words(entry["quote"]):
            assert word in said, (entry["key"], word)
    for result in PAPERS[name]["results"]:
        digits = re.escape(f"{result['value']:g}")
        assert re.search(rf"(?<!\d){digits}(\.?0)?(?!\d)", _source(name).replace(",", "")), result


@pytest.mark.parametrize("name", [name for name, paper in PAPERS.items() if paper["format"].endswith("_html")])
def test_html_is_what_latexml_makes(name):
    paper = PAPERS[name]
    text = (HELD[name] / name / paper["file"]).read_text(encoding="utf-8")
    for mark in ('class="ltx_document', 'class="ltx_title ltx_title_section"', 'class="ltx_tabular', "<math"):
        assert mark in text
    assert ("ar5iv-footer" in text) == (paper["format"] == "ar5iv_html")


@pytest.mark.parametrize("held", FORMATS, ids=lambda held: held.name)
def test_the_expected_answers_score_in_full(held):
    told = score({name: paper["hyperparameters"] for name, paper in papers(held).items()}, held)
    assert (told.precision, told.recall, told.wrong) == (1.0, 1.0, ())


@pytest.mark.parametrize("name", PAPERS)
def test_every_trap_is_a_wrong_answer(name):
    paper = PAPERS[name]
    for trap in paper["traps"]:
        for stage in [trap["stage"]] if "stage" in trap else [stage["name"] for stage in paper["stages"]]:
            own = [
                entry
                for entry in paper["hyperparameters"]
                if entry["stage"] == stage and canonical(entry["key"], 0)[0] == canonical(trap["key"], 0)[0]
            ]
            if any(same_value(entry["value"], trap["value"]) for entry in own):
                continue
            told = score({name: [{**trap, "stage": stage, "model": None, "quote": "as told"}]}, HELD[name])
            assert len(told.wrong) == 1, (stage, trap)


def test_a_right_number_in_the_wrong_stage_is_wrong():
    answer = {"stage": "dpo", "model": None, "key": "learning_rate", "value": 2e-5, "quote": "Learning rate 2e-5 4e-7"}
    assert [one.why for one in score({"margin-dpo": [answer]}).wrong] == [
        "right number, wrong or undecided stage or model"
    ]
    assert score({"margin-dpo": [{**answer, "stage": "SFT stage"}]}).right == 1


def test_an_undecided_stage_or_model_is_right_only_where_nothing_hangs_on_it():
    rate = {"stage": None, "model": None, "key": "learning_rate", "value": 2e-5, "quote": "x"}
    assert score({"margin-dpo": [rate]}).right == 0
    assert score({"margin-dpo": [{**rate, "key": "adam_beta2", "value": 0.98}]}).right == 1
    assert score({"ladder-lora": [{**rate, "value": 2e-4}]}).right == 0
    assert score({"ladder-lora": [{**rate, "value": 2e-4, "model": "meta-llama/Llama-3.2-1B"}]}).right == 1


def test_a_model_that_only_repeats_the_stage_or_says_ours_is_none():
    rate = {"stage": "PPO", "model": "PPO", "key": "learning_rate", "value": 1.2e-6, "quote": "Learning rate"}
    assert score({"three-act-rlhf": [rate, {**rate, "model": "ours"}]}).right == 2
    assert score({"three-act-rlhf": [{**rate, "model": "DPO 2.8B"}]}).right == 0


def test_a_value_without_a_quote_is_wrong_and_an_ambiguous_one_is_not_counted():
    answer = {"stage": "sft", "model": None, "key": "learning_rate", "value": 1.5e-5, "quote": " "}
    assert [one.why for one in score({"slate-sft": [answer]}).wrong] == ["no quote"]
    told = score({"margin-dpo": [{**answer, "stage": "dpo", "key": "global_batch_size", "value": 128, "quote": "x"}]})
    assert (told.answered, told.ambiguous) == (0, 1)


def test_values_compare_as_settings():
    assert same_value("2e-5", 0.00002)
    assert not same_value(2e-5, 2.0001e-5)
    assert not same_value(True, 1)
    assert same_value("adamw_torch", "AdamW")
    assert not same_value("adamw_8bit", "adamw")
    assert canonical("warmup_steps", 0.03) == ("warmup_ratio", 0.03)


def test_silence_has_no_precision():
    told = score({})
    assert (told.precision, told.recall, told.answered) == (0.0, 0.0, 0)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(98, 100).low == pytest.approx(0.9300, abs=1e-4)


def test_a_latex_archive_has_the_same_bytes_twice():
    folder = CORPUS / "seedling-pretrain/source"
    assert latex_archive(folder) == latex_archive(folder)
    assert latex_archive(folder).startswith(b"\x1f\x8b")
