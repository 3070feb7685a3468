"""The language model in the loop: the real bot thinks through the real client, and a test writes the model's side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.language_models import (
    Answer,
    ChatApi,
    Json,
    MessagesApi,
    Script,
    broken_off,
    calls,
    error,
    text,
)  # fmt: skip
from tests.loop.test_commands import reply_to
from tests.loop.test_own_benchmark import OWN, item_lines
from tests.loop.test_recovery import difference, pursue, seen
from tests.world import GOOD, RECIPE, World, goal_body, practice_world

KEY = "sk-ant-api03-of-a-test-0123456789"
FOLDER = "experiments/0001-reverse"
POLICY = """\
consent:
  auto_approve:
    runs: 6
    gpu_hours: 2
    usd: 0
    recipe_keys: [learning_rate, max_steps, num_train_epochs, optim, data_sources, data_max_rows, weight_decay]
    scripts: [data/prepare.py, train.py]
"""
RUNS: dict[str, dict[str, Any]] = {
    f"{role}-{n:02d}": outcome
    for n in range(1, 9)
    for role, outcome in (("smoke", {}), ("train", {"curve": "flat"}), ("evaluate", {"value": 0.02}),
                          ("confirm", {"value": 0.96}), ("probe", {"suggested": 3e-3}))
}  # fmt: skip
NOTHING = {"kind": "nothing", "reason": "The playbook's plan is as good as any."}


def propose(**arguments: Any) -> Answer:
    return calls(("propose", {"reason": "Run 1's loss is flat from step 1 to 100.", **arguments}))


def plan(*answers: Script) -> list[Script]:
    """What the model says about the first plan."""
    return list(answers) or [propose(**NOTHING)]


@contextmanager
def thinking_world(
    folder: Path, *, chat: bool = False, policy: str = POLICY, deaths: Path | None = None, **settings: str
) -> Iterator[Any]:
    """(world, api), the bot not started yet."""
    api: Any = ChatApi(KEY) if chat else MessagesApi(KEY)
    with api.serve():
        named = {"POSTDOC_BRAIN": "openai:qwen3" if chat else "anthropic:claude-opus-4-6", "POSTDOC_BRAIN_KEY": KEY,
                 "POSTDOC_BRAIN_URL": api.url.rstrip("/"), "POSTDOC_BRAIN_PRICE": "0/0", **settings}  # fmt: skip
        with practice_world(folder, policy=policy, settings=named, deaths=deaths) as world:
            yield world, api


def pursued_with(world: World, outcomes: Mapping[str, Any], body: str | None = None) -> tuple[int, str]:
    world.runner.script(GOOD | RUNS | outcomes)
    world.start()
    world.wait_ready()
    issue = world.open_goal(body)
    return issue, world.until_ended(issue)


def kinds(world: World, issue: int, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in world.events(issue) if event["kind"] == kind]


def said(api: Any) -> str:
    return "\n".join(json.dumps(each) for each in api.asked)


def last_results(body: Json) -> str:
    return json.dumps(body["messages"][-1])


# --- a whole goal


CRASH = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x16 and 32x16)"


def scripted_side(world: World) -> list[Script]:
    """Looks, finds other data, writes its script; then a patch that crashes, and the same mended."""

    def data(body: Json) -> Answer:
        # What prepare.py imports can be read, though not written.
        assert "Conversations in the forms" in last_results(body), last_results(body)[:2000]
        return propose(
            kind="data", dataset="data/more.jsonl", files=[{"path": "data/prepare.py", "edits": [_FROM_MORE]}]
        )

    def after_crash(body: Json) -> Answer:
        assert CRASH in last_results(body), last_results(body)[:2000]
        world.runner.script(GOOD | RUNS | BETTER)
        return propose(kind="patch", label="plateau", files=[patched("Twice the heads.")])

    return [
        calls(
            ("read_file", {"path": "data/prepare.py", "lines": 20}),
            ("read_file", {"path": "data/columns/turns.py", "lines": 20}),
        ),
        data,
        propose(kind="patch", label="plateau", files=[patched("Wrong.")]),
        after_crash,
    ]  # fmt: skip


def patched(words: str) -> Json:
    return {"path": "train.py", "edits": [{"old": DOCSTRING, "new": f"{DOCSTRING} {words}"}]}


BETTER: dict[str, Any] = {"train-02": {"curve": "good"}, "evaluate-02": {"value": 0.97}}
DOCSTRING = '"""Supervised fine-tuning with TRL: one recipe in, one model out.'


_FROM_MORE = {"old": '"""Builds the training set:', "new": '"""Builds the training set from more rows:'}


def _prepare() -> str:
    shipped = (Path(__file__).resolve().parents[2] / "templates" / "scripts" / "prepare.py").read_text()
    return shipped.replace(_FROM_MORE["old"], _FROM_MORE["new"])


def test_a_goal_is_met_by_the_change_that_the_model_proposed(tmp_path: Path) -> None:
    """The quick one: from the model's words to a commit, a run and the end."""
    with thinking_world(tmp_path) as (world, api):
        api.say(propose(**NOTHING), propose(kind="recipe", label="plateau", settings={"learning_rate": 3e-3}))
        issue, state = pursued_with(world, BETTER)
        assert state == "met", world.log()
        assert kinds(world, issue, "revised")[0]["changed"]["learning_rate"] == [2e-05, 0.003]
        assert "### Proposed by the language model" in world.reviews(world.pulls()[0]["number"])[0]["body"]
        assert not api.script


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True], ids=["messages", "completions"])
def test_a_goal_is_met_by_what_the_model_found_wrote_and_mended(tmp_path: Path, chat: bool) -> None:
    with thinking_world(tmp_path, chat=chat) as (world, api):
        rows = "".join(json.dumps({"prompt": f"write {i}", "completion": str(i)}) + "\n" for i in range(50))
        world.commit("data/more.jsonl", rows)
        api.say(*scripted_side(world))
        issue, state = pursued_with(world, BETTER | {"smoke-02": {"fail": CRASH}})
        assert state == "met", world.log()
        # The plan carries its data and its script; the second run its patch.
        started = kinds(world, issue, "run_started")
        first, second = (each["head_sha"] for each in started)
        assert "data_sources: data/more.jsonl" in world.file(first, f"{FOLDER}/recipe.yaml")
        assert world.file(first, f"{FOLDER}/data/prepare.py") == _prepare()
        assert world.file(second, f"{FOLDER}/train.py").startswith("# /// script")
        assert "Twice the heads." in world.file(second, f"{FOLDER}/train.py")
        refused, adopted = kinds(world, issue, "proposal_checked")[1:]
        assert "Two steps of it failed" in refused["refused"] and adopted["refused"] is None
        [pull] = world.pulls()
        reviews = [each["body"] for each in world.reviews(pull["number"])]
        assert "### Proposed by the language model" in reviews[0] and "Refused proposals (1)" in reviews[0]
        assert "rewrote `train.py`" in reviews[1]
        sticky = next(body for body in world.bot_comments(pull["number"]) if "/sticky" in body)
        assert "| Language model |" in sticky
        # A question on the pull request, answered from the record.
        api.say(text("Run 2 rewrote train.py, and its loss fell until step 100."))
        assert "its loss fell" in reply_to(world, pull["number"], "/postdoc ask What helped?", issue)
        assert "speak 3" not in said(api)


# --- what may go wrong


@pytest.mark.slow
def test_whatever_the_provider_answers_is_one_sentence_and_the_goal_goes_on(tmp_path: Path) -> None:
    """A bad key, no credit, an outage, a refusal; then a stream that breaks off and a reply that is cut, which are made
    up for within the turn."""
    with thinking_world(tmp_path) as (world, api):
        api.say(
            error(401, "authentication_error", "invalid x-api-key"),
            error(402, "billing_error", "Your credit balance is too low"),
            error(529, "overloaded_error", "Overloaded", retry_after="900"),
            text("I would rather not.", "refusal"),
            broken_off("Let me"), calls(("propose", {"kind": "rec"}), stop="max_tokens"),
            propose(**NOTHING),
        )  # fmt: skip
        world.runner.script(GOOD | RUNS)
        world.start()
        world.wait_ready()
        issue = world.open_goal(goal_body(Budget_in_runs="5"))
        assert world.until_ended(issue) == "exhausted"
        thoughts = kinds(world, issue, "thought")
        assert [each["outcome"] for each in thoughts] == ["refused", "refused", "away", "refused", "nothing"]
        pull = world.pulls()[0]
        told = [pull["body"], *(each["body"] for each in world.reviews(pull["number"]))]
        says = ("POSTDOC_BRAIN_KEY", "has no credit", "is busy", "declined to go on", "proposed nothing of its own")
        for body, words in zip(told, says, strict=False):
            assert words in body and "so the playbook goes on" in body and "Traceback" not in body
        assert "cut at its limit" in said(api) and not api.script
        assert len(kinds(world, issue, "run_started")) == 5
        assert KEY not in json.dumps(world.events(issue)) and KEY not in json.dumps(told)


@pytest.mark.slow
def test_a_change_that_nobody_agreed_to_waits_with_its_script_shown(tmp_path: Path) -> None:
    """Accepting commits it, and training it is asked about again."""
    with thinking_world(tmp_path, policy=POLICY.replace("scripts: [data/prepare.py, train.py]", "scripts: []")) as (
        world,
        api,
    ):
        api.say(propose(**NOTHING), propose(kind="patch", label="plateau", files=[patched("Twice.")]))
        world.runner.script(GOOD | RUNS | BETTER)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        question = world.bot_comments(pull)[-1]
        assert "a rewritten `train.py`" in question and "/postdoc accept P2" in question
        assert f"{DOCSTRING} Twice." in world.reviews(pull)[0]["body"]
        assert "P9 is not what stands" in reply_to(world, pull, "/postdoc accept P9", issue)
        world.comment(pull, "/postdoc accept P2")
        asked = world.until_event(issue, "consent_asked", 2)["data"]["head_sha"]
        assert "Twice." in world.file(asked, f"{FOLDER}/train.py")
        world.comment(pull, f"/postdoc run {asked[:12]}")
        assert world.until_ended(issue) == "met"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_point_of_a_thought_pays_no_turn_twice_and_commits_nothing_twice(tmp_path: Path) -> None:
    points = {"POSTDOC_TEST_DEATHS_AT": "think|settle|smoke|revise|check_data|contents|commit|turn"}
    found = {}
    for name, deaths in (("undisturbed", None), ("killed", tmp_path / "deaths")):
        settings: Any = points if deaths else {}
        with thinking_world(tmp_path / name, deaths=deaths, **settings) as (world, api):
            rows = "".join(json.dumps({"prompt": f"write {i}", "completion": str(i)}) + "\n" for i in range(50))
            world.commit("data/more.jsonl", rows)
            api.say(*scripted_side(world))
            world.runner.script(GOOD | RUNS | BETTER | {"smoke-02": {"fail": CRASH}})
            died = pursue(world)
            assert world.until_ended(1) == "met", world.log()
            found[name] = seen(world, 1) | {"asked": len(api.asked)}
            assert not api.script
    assert died > 20
    for what in found["killed"]:
        assert found["killed"][what] == found["undisturbed"][what], "\n".join(
            difference(found["undisturbed"][what], found["killed"][what])
        )


@pytest.mark.slow
def test_the_plan_is_explained_and_made_again_without_training(tmp_path: Path) -> None:
    with thinking_world(tmp_path, policy=POLICY.replace("runs: 6", "runs: 0")) as (world, api):
        world.runner.script(GOOD | RUNS | BETTER)
        api.say(propose(**NOTHING))
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        api.say(text("It trains the first recipe; the record does not show yet what to expect."))
        explained = reply_to(world, pull, "/postdoc plan", issue)
        assert "The next run" in explained and "the record does not show yet" in explained
        api.say(propose(kind="recipe", settings={"max_steps": 300}))
        world.comment(pull, "/postdoc plan again longer, please")
        head = world.until_event(issue, "revised")["data"]["head_sha"]
        assert "max_steps: 300" in world.file(head, f"{FOLDER}/recipe.yaml")
        assert "longer, please" in json.dumps(api.asked[-1])
        assert world.until_event(issue, "consent_asked", 2)["data"]["head_sha"] == head
        assert not any("train" in job for job in world.runner.launches())
        world.comment(pull, f"/postdoc run {head[:12]}")
        world.until_event(issue, "run_started")
        assert kinds(world, issue, "run_started")[0]["head_sha"] == head


@pytest.mark.slow
def test_a_goal_without_training_data_is_pursued_on_what_the_model_found(tmp_path: Path) -> None:
    """A benchmark of the team's own has no rows to train on. What was found is a person's to agree to."""
    with thinking_world(tmp_path, policy=POLICY.replace("data_sources, ", "")) as (world, api):
        world.commit("benchmarks/ours.yaml", OWN)
        world.commit("benchmarks/ours.jsonl", item_lines())
        missing = propose(kind="data", dataset="data/nowhere.jsonl")
        other = propose(kind="recipe", settings={"max_steps": 9})
        api.say(missing, other, propose(kind="data", dataset="data/train.jsonl"))
        api.say(propose(kind="recipe", label="plateau", settings={"learning_rate": 3e-3}))
        world.runner.script(GOOD | RUNS | BETTER)
        world.start()
        world.wait_ready()
        recipe = f"```yaml\n{RECIPE}```"
        issue = world.open_goal(goal_body(Benchmark="benchmarks/ours.yaml", Training_data="", Starting_recipe=recipe))
        asked = world.until_event(issue, "consent_asked")["data"]["head_sha"]
        assert "nowhere.jsonl" in said(api) and "has no training data yet" in said(api)
        assert "data_sources: data/train.jsonl" in world.file(asked, "experiments/0001-ours/recipe.yaml")
        pull = world.pulls()[0]["number"]
        world.comment(pull, f"/postdoc run {asked[:12]}")
        assert world.until_ended(issue) == "met", world.log()


@pytest.mark.slow
def test_a_goal_for_which_no_data_is_found_says_what_to_write(tmp_path: Path) -> None:
    with thinking_world(tmp_path) as (world, api):
        world.commit("benchmarks/ours.yaml", OWN)
        world.commit("benchmarks/ours.jsonl", item_lines())
        api.say(propose(kind="nothing", reason="Nothing fits."))
        world.runner.script(GOOD | RUNS)
        world.start()
        world.wait_ready()
        issue = world.open_goal(goal_body(Benchmark="benchmarks/ours.yaml", Training_data=""))
        world.until_event(issue, "refused")
        assert "No training data was found for this goal (Nothing fits)" in world.bot_comments(issue)[-1]
        assert world.pulls() == []


@pytest.mark.slow
def test_a_script_that_crashes_in_the_real_run_is_taken_back_by_the_playbook(tmp_path: Path) -> None:
    """Two steps went well, the training did not, and the model has nothing to say to that."""
    with thinking_world(tmp_path) as (world, api):
        api.say(propose(**NOTHING), propose(kind="patch", label="plateau", files=[patched("Late crash.")]))
        api.say(propose(**NOTHING))
        better = {"train-02": {"fail": CRASH}, "train-03": {"curve": "good"}, "evaluate-03": {"value": 0.97}}
        issue, state = pursued_with(world, better)
        assert state == "met", world.log()
        assert CRASH in said(api)
        shas = [each["head_sha"] for each in kinds(world, issue, "run_started")]
        scripts = [world.file(sha, f"{FOLDER}/train.py") for sha in shas]
        assert "Late crash." in scripts[1] and scripts[2] == scripts[0]
        assert kinds(world, issue, "run_started")[2]["changed"].keys() == {"learning_rate"}
        assert "Back to the scripts of run 1." in world.reviews(world.pulls()[0]["number"])[1]["body"]


@pytest.mark.slow
def test_what_the_preflight_knows_to_be_in_vain_is_not_tried_for_a_single_step(tmp_path: Path) -> None:
    """The rules that stop a run stop what was proposed before it reaches the machine."""
    with thinking_world(tmp_path) as (world, api):
        prepare = _prepare() + "\n# every row with an empty answer\n"
        api.say(propose(kind="data", files=[{"path": "data/prepare.py", "content": prepare}]), propose(**NOTHING))
        empty = [
            {"prompt": [{"role": "user", "content": f"q {i}"}], "completion": [{"role": "assistant", "content": ""}]}
            for i in range(50)
        ]
        world.runner.script(GOOD | RUNS | BETTER | {"data-01": {"rows": empty}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_ended(issue)
        refused = [each["refused"] for each in kinds(world, issue, "proposal_checked")]
        assert refused and "preflight" in refused[0]
        assert not any("smoke" in job for job in world.runner.launches())
