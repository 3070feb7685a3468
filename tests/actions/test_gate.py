"""Mode `gate`: the three verdicts, the one comment, and a pull request that would like to judge itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.actions.conftest import TEMPLATES, Place, evaluation

GATE = TEMPLATES / "postdoc-gate.yml"
MODEL = "model/evaluation.json"
BENCHMARK = "benchmarks/ours.yaml"
YAML = "description: d\nlicence: cc0-1.0\nn: {dev: 200, sealed: 200}\nitems: {file: ours.jsonl}\n"
WRITES = {"contents": "read", "pull_requests": "write"}


def gate(place: Place, base: str, head: str, workflow: str | Path = GATE, **given: str):
    place.push({MODEL: base, BENCHMARK: YAML, "benchmarks/ours.jsonl": "{}\n"})
    place.push({MODEL: head}, branch="change")
    event = place.open_pull("change")
    return place.run(workflow, "pull_request", event, token=place.token(**WRITES)), event


@pytest.mark.parametrize(
    ("head", "shift", "conclusion", "state", "verdict"),
    [
        (60, 0, "failure", "failed", "worse"),
        (140, 0, "success", "passed", "better"),
        (98, 4, "success", "neutral", "cannot tell"),
    ],
)
def test_only_a_significantly_worse_head_fails(
    place: Place, head: int, shift: int, conclusion: str, state: str, verdict: str
) -> None:
    run, event = gate(place, evaluation(100), evaluation(head, shift=shift))
    assert run.conclusion == conclusion, run.log.text
    outputs = run.step("OWNER/postdoc@0000000000000000000000000000000000000000").outputs
    expected = json.loads(evaluation(head, shift=shift))
    assert float(outputs["value"]) == expected["value"]
    assert float(outputs["standard-error"]) == expected["standard_error"]
    assert (outputs["state"], outputs["verdict"]) == (state, verdict)
    assert verdict in run.summary
    kept = run.artifact("postdoc-gate")
    assert json.loads((kept / "evaluation.json").read_text())["value"] == expected["value"]
    assert json.loads((kept / "base.json").read_text())["value"] == 0.5
    [comment] = place.comments(event["number"])
    assert comment["user"]["login"] == "github-actions[bot]"
    assert verdict in comment["body"]
    if state == "neutral":
        [told] = [each for each in run.annotations if each.level == "notice"]
        assert "cannot tell" in told.title
        assert "takes about" in told.message
        assert "The smallest difference that they would show" in run.summary


@pytest.mark.slow
def test_second_run_edits_the_comment_and_leaves_others_alone(place: Place) -> None:
    place.push({MODEL: evaluation(100), BENCHMARK: YAML})
    place.push({MODEL: evaluation(140)}, branch="change")
    event = place.open_pull("change")
    token = place.token(**WRITES)
    key = "<!-- postdoc-action:postdoc-gate.yml/gate/gate -->"
    place.comment(event["number"], f"{key}\nmine, and it says: all is well")
    for head in (140, 60):
        sha = place.push({MODEL: evaluation(head), "note": str(head)}, branch="change", base="change")
        event["pull_request"]["head"]["sha"] = sha
        place.run(GATE, "pull_request", event, token=token)
    others, own = place.comments(event["number"])
    assert others["body"].endswith("all is well")
    assert own["body"].startswith(key)
    assert "worse" in own["body"]


@pytest.mark.slow
def test_token_that_may_only_read_gives_a_notice_and_no_failure(place: Place) -> None:
    place.push({MODEL: evaluation(100), BENCHMARK: YAML})
    place.push({MODEL: evaluation(140)}, branch="change")
    event = place.open_pull("change")
    run = place.run(GATE, "pull_request", event, token=place.token(contents="read"))
    assert run.conclusion == "success"
    assert any("pull-requests: write" in each.message for each in run.annotations)
    assert place.comments(event["number"]) == []


@pytest.mark.slow
def test_different_harnesses_do_not_compare(place: Place) -> None:
    run, _ = gate(place, evaluation(100), evaluation(100).replace("ab" * 32, "cd" * 32))
    assert run.conclusion == "failure"
    [told] = [each for each in run.annotations if each.level == "error" and each.title]
    assert told.title == "Postdoc gate"
    assert run.step("OWNER/postdoc@0000000000000000000000000000000000000000").outputs["state"] == "refused"


def test_nothing_to_compare_with_is_said_in_one_sentence(place: Place) -> None:
    place.push({MODEL: evaluation(100), BENCHMARK: YAML})
    workflow = GATE.read_text().replace("pull_request:", "push:")
    run = place.run(workflow, "push", {"ref": "refs/heads/main"})
    assert run.conclusion == "failure"
    assert any("write `base-model`" in each.message for each in run.annotations)
    assert "Traceback" not in run.log.text


def test_checkout_with_modules_of_its_own_is_never_imported(place: Place) -> None:
    bomb = "import pathlib\npathlib.Path('/{}').write_text('run')\n"
    marker = place.folder / "imported"
    bomb = bomb.replace("/{}", str(marker))
    place.push({MODEL: evaluation(100), BENCHMARK: YAML})
    names = ("actions/__init__", "bot/__init__", "runners/__init__", "json", "yaml", "sitecustomize", "usercustomize")
    place.push({MODEL: evaluation(140), **{f"{name}.py": bomb for name in names}}, branch="change")
    run = place.run(GATE, "pull_request", place.open_pull("change"), token=place.token(**WRITES))
    assert run.conclusion == "success", run.log.text
    assert not marker.exists()


NASTY = "a$(touch pwned)`touch pwned`\"; touch pwned; 'x ${{ github.token }} ::error::x"


def test_words_of_strangers_stay_words(place: Place) -> None:
    """In a title, a branch name, and in every input that a dispatch can fill."""
    place.push({MODEL: evaluation(100), BENCHMARK: YAML})
    branch = "x-$(touch${IFS}pwned)-`id`-'\"&;|"
    place.push({MODEL: evaluation(140)}, branch=branch)
    event = place.open_pull(branch, title=NASTY + "\nsecond line")
    run = place.run(GATE, "pull_request", event, token=place.token(**WRITES))
    assert run.conclusion == "success", run.log.text
    assert list(place.folder.rglob("pwned")) == []
    inputs = {"model": f"{NASTY}\n::add-mask::lab", "benchmark": f"practice/reverse\n{NASTY}"}
    run = place.run(TEMPLATES / "postdoc-evaluate.yml", "workflow_dispatch", {"inputs": inputs})
    assert run.conclusion == "failure"
    assert list(place.folder.rglob("pwned")) == []
    [told] = [each for each in run.annotations if each.title == "Postdoc evaluate"]
    assert "there is no a$(touch pwned)" in told.message
    assert "lab" not in run.log.masks
    assert "](" not in run.summary
