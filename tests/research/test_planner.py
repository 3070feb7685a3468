"""What a plan rests on, researched against stand-ins of the Hub, the catalogues of papers and arXiv."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.conversation.messages.research import research_sections
from bot.data.evaluation_sets import training_refusal
from bot.data.licences import licence_gate
from bot.research.hosts import HOSTS
from bot.research.installed import Installed
from bot.research.planner import Findings, Judges, Question, Quoted, Setting, research
from tests.research.hub_stand_in import HubStandIn, Shown
from tests.research.stand_in import Answer, web_at

RECIPE = {"learning_rate": 1.0e-6, "num_generations": 8, "max_steps": 100}
SOURCES = {"learning_rate": "the goal", "num_generations": "a row", "max_steps": "a row"}
PAPER = """<!DOCTYPE html><html lang="en"><head><title>Small Steps</title></head><body>
<div class="ltx_page_content"><article class="ltx_document">
<h1 class="ltx_title ltx_title_document">Small Steps for Grade School Math</h1>
<div class="ltx_abstract"><h6 class="ltx_title ltx_title_abstract">Abstract</h6>
<p class="ltx_p">We train with GRPO.</p></div>
<section class="ltx_section" id="S1"><h2 class="ltx_title ltx_title_section">1 Training</h2>
<div class="ltx_para" id="S1.p1"><p class="ltx_p">We train Qwen2.5-1.5B with GRPO using a learning rate of 3e-6 and a
group size of 16.</p></div></section>
<section class="ltx_section" id="S2"><h2 class="ltx_title ltx_title_section">2 Results</h2>
<figure class="ltx_table" id="S2.T1"><figcaption class="ltx_caption">
<span class="ltx_tag ltx_tag_table">Table 1: </span>Accuracy on math benchmarks.</figcaption>
<table class="ltx_tabular"><tbody class="ltx_tbody">
<tr class="ltx_tr"><th class="ltx_td ltx_th">Model</th><th class="ltx_td ltx_th">GSM8K</th></tr>
<tr class="ltx_tr"><td class="ltx_td">Qwen2.5-1.5B</td><td class="ltx_td">62.1</td></tr>
<tr class="ltx_tr"><td class="ltx_td">Ours</td><td class="ltx_td">73.4</td></tr>
</tbody></table></figure></section>
</article></div></body></html>"""
FEED = """<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom"></feed>"""


def gate(licence: str) -> tuple[bool, str]:
    found = licence_gate(licence, ())
    return found.ok, found.reason


JUDGES = Judges(training_refusal, gate)


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn().serve() as stand_in:
        stand_in.put("acme/math-words", Shown(features={"question": "string", "answer": "string"}))
        stand_in.put("HuggingFaceH4/MATH-500", Shown(downloads=9_000_000))
        hit = {
            "paper": {"id": "2501.01234", "title": "Small Steps for Grade School Math", "summary": "We train.",
                      "authors": [{"name": "A. Author"}], "publishedAt": "2025-01-02T00:00:00.000Z", "upvotes": 3},
            "title": "Small Steps for Grade School Math", "publishedAt": "2025-01-02T00:00:00.000Z",
        }  # fmt: skip
        stand_in.server.answers["/api/papers/search"] = Answer([hit])
        stand_in.server.answers["/api/query"] = Answer(FEED, content_type="application/atom+xml")
        stand_in.server.answers["/html/2501.01234"] = Answer(PAPER)
        yield stand_in


async def found(folder: Path, hub: HubStandIn, benchmark: str = "GSM8K", **given: Any) -> Findings:
    web = web_at(folder, dict.fromkeys(HOSTS, hub.server.url), record=folder / "record.jsonl")
    return await research(web, Question("grpo", benchmark), RECIPE, SOURCES, JUDGES, clock=lambda: 1.79e9, **given)


async def test_plan_rests_on_goal_row_installed_default_and_paper(tmp_path: Path, hub: HubStandIn) -> None:
    findings = await found(tmp_path, hub)
    rate, group, steps = findings.settings
    assert (rate.key, rate.value, rate.source, float(rate.default)) == ("learning_rate", 1e-6, "the goal", 1e-6)
    assert rate.default_source.startswith("trl ")
    assert [(each.value, "learning rate of 3e-6" in each.quote) for each in rate.papers] == [(3e-6, True)]
    assert rate.papers[0].url.startswith("https://arxiv.org/html/2501.01234")
    assert [each.value for each in group.papers] == [16]
    assert steps.papers == ()
    assert [(gain.model, gain.said) for gain in findings.gains] == [("Qwen2.5-1.5B", "62.1"), ("Ours", "73.4")]
    assert [offer.id for offer in findings.offers] == ["acme/math-words"]
    assert any("5,000 rows" in reason for reason in findings.offers[0].reasons)


async def test_only_the_method_and_the_public_benchmark_leave(tmp_path: Path, hub: HubStandIn) -> None:
    await found(tmp_path, hub)
    sent = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    words = " ".join(each["query"] for each in sent if each["path"] in ("/api/query", "/api/papers/search"))
    assert "GSM8K" in words
    assert "grpo" in words
    assert len(sent) == len(hub.server.asked)


async def test_benchmark_of_ones_own_stays_at_home(tmp_path: Path, hub: HubStandIn) -> None:
    findings = await found(tmp_path, hub, benchmark="")
    assert hub.server.asked == []
    assert any("does not leave" in note for note in findings.notes)
    assert findings.settings[0].default  # what is installed is known all the same


async def test_without_the_network_the_plan_is_made_and_says_so(tmp_path: Path) -> None:
    web = web_at(tmp_path, {})
    findings = await research(web, Question("grpo", "GSM8K"), RECIPE, SOURCES, JUDGES, clock=lambda: 1.79e9)
    assert [each.key for each in findings.settings] == list(RECIPE)
    assert (findings.gains, findings.offers) == ((), ())
    assert any("could not be reached" in note for note in findings.notes)
    shown = "\n".join(research_sections(findings.as_dict()))
    assert "Missing from this:" in shown
    assert "could not be reached" in shown


async def test_slow_network_is_not_waited_for(tmp_path: Path, hub: HubStandIn) -> None:
    findings = await found(tmp_path, hub, seconds=0.0)
    assert any("ended after 0 seconds" in note for note in findings.notes)
    assert len(findings.settings) == 3


async def test_rate_limits_and_broken_answers_are_notes(tmp_path: Path, hub: HubStandIn) -> None:
    hub.server.answers["/api/papers/search"] = Answer("<html>", content_type="text/html")
    hub.server.answers["/api/query"] = Answer(status=429, headers={"Retry-After": "600"})
    hub.server.answers["/api/datasets"] = Answer(status=503)
    notes = "\n".join((await found(tmp_path, hub)).notes)
    assert "Papers were not searched" in notes
    assert "Data sets were not searched" in notes


async def test_training_environment_that_is_elsewhere_is_a_note(tmp_path: Path, hub: HubStandIn) -> None:
    findings = await found(tmp_path, hub, installed=Installed(tmp_path / "python"))
    assert findings.settings[0].default == ""
    assert any("Installed defaults are not known" in note for note in findings.notes)


async def test_findings_are_shown_inert(tmp_path: Path, hub: HubStandIn) -> None:
    findings = await found(tmp_path, hub)
    [shown] = research_sections(json.loads(json.dumps(findings.as_dict())))
    assert "`learning_rate`" in shown
    assert "“We train Qwen2.5-1.5B with GRPO" in shown
    assert "`acme/math-words`" in shown
    hostile = Quoted("@ada", "<!-- x --> @ada closes #1 [click](https://evil.example)", "T](https://evil.example)", "u")
    setting = Setting("learning_rate", "`|`", "s", papers=(hostile,))
    [shown] = research_sections(dataclasses.replace(findings, settings=(setting,)).as_dict())
    assert "](https://evil" not in shown
    assert "closes #1" not in shown
    assert "<!--" not in shown
    assert research_sections({}) == []
