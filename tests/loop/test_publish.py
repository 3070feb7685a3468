"""Publishing: the best model on a Hub over HTTP, by the real client, asked for on the forge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_models import Model
from tests.world import GOOD, POLICY, REPOSITORY, World, practice_world

WEIGHTS = "weights of run 2"
MODEL_FILES = {
    "out/model/model.safetensors": WEIGHTS,
    "out/model/config.json": '{"model_type": "qwen3"}',
    "out/model/README.md": "a trainer's own card",
    "out/model/training_args.bin": "a pickle",
    "out/model/modeling_own.py": "import os",
}


@dataclass
class Places:
    world: World
    hub: FakeHub
    folder: Path

    def restarted(self, **settings: str) -> World:
        self.world.stop()
        self.world.environment |= settings
        self.world.start()
        assert self.world.wait_ready()
        return self.world

    def met(self) -> tuple[int, int, str]:
        """(issue, pull request, repository on the Hub) of a new goal that was met."""
        issue = self.world.open_goal()
        assert self.world.until_ended(issue) == "met"
        pull = self.world.first(issue, "proposed")["pull_request"]
        return issue, pull, f"acme/tiny-test-reverse-speller-{issue}"

    def ask(self, pull: int, issue: int, *, login: str = "ada") -> str:
        """The answer to `/postdoc publish`."""
        before = len(self.answers(issue))
        self.world.comment(pull, "/postdoc publish", login=login)
        self.world.until(lambda: len(self.answers(issue)) > before, "an answer")
        return self.answers(issue)[-1]

    def answers(self, issue: int) -> list[str]:
        return [e["data"]["reply"] for e in self.world.events(issue) if e["kind"] == "command_answered"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("publish")
    with FakeHub().serve() as fake, practice_world(folder) as world:
        world.runner.script(GOOD | {"train-02": {"curve": "good", "files": MODEL_FILES}})
        world.environment |= {
            "HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"),
            "HF_TOKEN": "hf_lying_about", "POSTDOC_HUB_TOKEN": "hf_writer", "POSTDOC_HUB_NAMESPACES": "acme, other",
        }  # fmt: skip
        world.start()
        assert world.wait_ready()
        yield Places(world, fake, folder)


@pytest.mark.slow
def test_admin_publishes_a_private_model_with_its_card_and_again_without_harm(places: Places) -> None:
    world, models = places.world, places.hub.models.models
    issue, pull, repo = places.met()
    assert "`admin`" in places.ask(pull, issue, login="bob")
    assert repo not in models

    # The first attempt ends between making the repository and filling it.
    places.hub.faults = [
        Fault("/preupload/", 1, 429, {"Retry-After": "1"}),
        Fault(f"/api/models/{repo}/commit", 1, 500),
    ]
    answer = places.ask(pull, issue)
    assert [fault.times for fault in places.hub.faults] == [0, 0]
    found = models[repo]
    assert len(found.commits) == 1
    assert set(found.files) == {
        ".gitattributes", "model.safetensors", "config.json", "README.md", "recipe.yaml", "run.json"
    }  # fmt: skip
    assert found.files["model.safetensors"].decode() == WEIGHTS
    assert found.private
    assert found.card["postdoc_goal"] == f"{REPOSITORY}#{issue}"
    assert found.card["base_model"] == "postdoc/tiny-test"
    assert found.card["license"] == "apache-2.0"
    card = found.files["README.md"].decode()
    assert f'from_pretrained("{repo}")' in card
    assert str(places.folder) not in card
    assert json.loads(found.files["run.json"])["run"] == 2
    assert "0.003" in found.files["recipe.yaml"].decode()
    assert f"[`{repo}`]({places.hub.url}/{repo})" in answer
    assert "It is private" in answer
    assert f'AutoModelForCausalLM.from_pretrained("{repo}", revision="{found.sha}")' in answer
    data = world.first(issue, "published")
    assert (data["repo"], data["sha"], data["by"], data["run"]) == (repo, found.sha, "ada", 2)
    [sticky] = [body for body in world.bot_comments(pull) if "| Target |" in body]
    assert f"| Published | run 2: [`{repo}`]" in sticky
    assert not list(places.folder.glob("data/goals/*/publish"))
    assert places.hub.seen_tokens <= {"hf_writer", ""}

    # Again, with what an earlier version had left beside it: that goes, what a person added stays.
    found.files |= {"model-00002-of-00002.safetensors": b"old", "notes.md": b"mine"}
    places.ask(pull, issue)
    assert "model-00002-of-00002.safetensors" not in found.files
    assert found.files["notes.md"] == b"mine"
    assert sum(asked.startswith("PUT /lfs/") for asked in places.hub.asked) == 1


def test_what_stands_in_the_way_is_one_sentence_and_the_goal_goes_on(places: Places) -> None:
    hub = places.hub
    issue, pull, repo = places.met()
    for there, says in (
        (Model(files={"README.md": b"---\nlicense: mit\n---\n"}), "holds something that is not this goal's"),
        (Model(files={"pytorch_model.bin": b"x"}), "holds something that is not this goal's"),
        (Model(private=False), f"Everybody can see `{repo}`"),
    ):
        hub.models.models[repo] = there
        before = dict(there.files)
        answer = places.ask(pull, issue)
        assert says in answer
        assert answer.startswith("Not carried out.")
        assert there.files == before
    del hub.models.models[repo]
    hub.models.writers["hf_writer"] = set()
    assert "does not let this server write" in places.ask(pull, issue)
    hub.models.writers["hf_writer"] = {"acme"}
    hub.faults = [Fault("/api/repos/create", 1, 402)]
    assert "does not accept" in places.ask(pull, issue)

    [job] = {e["data"]["job_id"] for e in places.world.events(issue)
             if e["kind"] == "job_launched" and e["data"]["role"] == "train" and e["data"]["run"] == 2}  # fmt: skip
    weights = places.world.runner.folder(job) / "out/model/model.safetensors"
    secret = places.folder / "secret.safetensors"
    secret.write_text("not the job's")
    weights.unlink()
    weights.symlink_to(secret)
    assert "there is nothing to publish" in places.ask(pull, issue)
    assert not any(event["kind"] in ("published", "crashed") for event in places.world.events(issue))


@pytest.mark.slow
def test_merge_publishes_where_the_policy_says_so_and_says_once_why_not(places: Places) -> None:
    world, hub = places.world, places.hub
    policy = f"{POLICY}publish:\n  on_merge: true\n  private: false\n  namespace: Other\n"
    world.commit(".github/postdoc.yml", policy)
    hub.models.writers["hf_writer"] = {"acme"}
    refused = places.met()
    granted = places.met()
    for issue, pull, _ in (refused, granted):
        hub.models.writers["hf_writer"] = {"acme", "other"} if issue == granted[0] else {"acme"}
        world.api("ada", "PUT", f"/repos/{REPOSITORY}/pulls/{pull}/merge")
        world.until_event(issue, "issue_closed")

    issue, pull, repo = refused
    assert "POSTDOC_HUB_TOKEN" in world.first(issue, "published")["problem"]
    said = [body for body in world.bot_comments(pull) if "The model was not published." in body]
    assert len(said) == 1
    issue, pull, repo = granted
    found = hub.models.models[repo.replace("acme/", "other/")]
    assert not found.private
    assert len(found.commits) == 1
    assert world.first(issue, "published")["by"] == "policy"
    assert any("Everybody can see it." in body for body in world.bot_comments(pull))
    # The one that was refused is asked for by hand.
    answer = places.ask(refused[1], refused[0])
    assert "Everybody can see it." in answer
    world.commit(".github/postdoc.yml", POLICY)


@pytest.mark.slow
def test_hub_that_is_away_for_long_is_said_and_asked_again_by_hand(places: Places) -> None:
    issue, pull, repo = places.met()
    places.hub.faults = [Fault("/api/models/", 6, 503)]
    places.world.comment(pull, "/postdoc publish")
    places.world.until(lambda: places.answers(issue), "an answer", 90.0)
    [answer] = places.answers(issue)
    assert "Not carried out. Just now the Hub could not be asked" in answer
    assert "`/postdoc publish`" in answer
    assert places.hub.faults[0].times == 0
    assert "It is private" in places.ask(pull, issue)
    assert places.hub.models.models[repo].files["model.safetensors"].decode() == WEIGHTS


@pytest.mark.slow
def test_goal_without_an_evaluated_run_and_server_without_a_place_publish_nothing(places: Places) -> None:
    world = places.world
    issue, pull, _ = places.met()
    asked = len(places.hub.asked)
    places.restarted(POSTDOC_HUB_NAMESPACES="")
    assert "POSTDOC_HUB_NAMESPACES" in places.ask(pull, issue)
    places.restarted(POSTDOC_HUB_NAMESPACES="acme", POSTDOC_HUB_TOKEN="")
    assert "POSTDOC_HUB_TOKEN" in places.ask(pull, issue)
    places.restarted(POSTDOC_HUB_TOKEN="hf_writer", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in places.ask(pull, issue)
    assert len(places.hub.asked) == asked

    issue = world.open_goal("no goal at all")
    world.until_event(issue, "contract_read")
    assert "no evaluated run" in places.ask(issue, issue)
