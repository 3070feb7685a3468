"""Research for one goal: recorded, and with nothing of the goal's own rows or the benchmark's items in a query."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent.functions import checked_arguments
from bot.brain.agent.research_functions import research_functions
from bot.domain.experiment import Experiment
from bot.domain.goal import GoalId
from bot.evaluation.benchmarks import Item
from bot.loop.actions.specs import goal_folder
from bot.loop.library import RECORD, library_of
from bot.loop.world import World
from bot.research.errors import Refused
from bot.research.hosts import HOSTS
from tests.research.hub_stand_in import HubStandIn, Shown

PRIVATE = "The customer Ottilie Brandstetter complained about the turquoise kettle in Graz"
ITEM = "Seventeen penguins share forty-two herrings between breakfast and supper"


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn().serve() as stand_in:
        stand_in.put("acme/sums", Shown(description="Sums of two numbers"))
        yield stand_in


@pytest.fixture
def world(tmp_path: Path, hub: HubStandIn) -> World:
    url = hub.server.url
    nowhere = dict.fromkeys(HOSTS, "http://127.0.0.1:9")
    addresses = nowhere | {"huggingface.co": url, "datasets-server.huggingface.co": url}
    return World(
        app=None, runner=None, treasury=None, data_folder=tmp_path, model_folders=(),  # type: ignore[arg-type]
        research=True, research_addresses=addresses, known_secrets=("hunter22-secret",),
    )  # fmt: skip


async def ask(world: World, name: str, /, **given: Any) -> Any:
    train = world.data_folder / "train.jsonl"
    train.write_text(json.dumps({"prompt": PRIVATE, "completion": "sorry"}) + "\n", encoding="utf-8")
    x = Experiment(GoalId("acme/models#7"))
    library = library_of(world, x, train, [Item("1", ITEM, "four")])
    function = research_functions(library)[name]
    return (await function.call(**checked_arguments(name, function.parameters, given))).value


async def test_what_is_asked_is_recorded_in_the_goals_folder(world: World) -> None:
    assert [each["id"] for each in await ask(world, "datasets.search", query="sums")] == ["acme/sums"]
    record = goal_folder(world, Experiment(GoalId("acme/models#7"))) / RECORD
    (line,) = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert "huggingface.co" in json.dumps(line) and "sums" in json.dumps(line)


@pytest.mark.parametrize(
    "query",
    ["complained about the turquoise kettle", "Ottilie Brandstetter", "seventeen penguins share forty-two herrings",
     "sums hunter22-secret"],
)  # fmt: skip
async def test_no_query_carries_the_goals_rows_items_or_secrets_out(world: World, hub: HubStandIn, query: str) -> None:
    with pytest.raises(Refused):
        await ask(world, "datasets.search", query=query)
    assert hub.server.asked == []


async def test_no_token_of_the_server_goes_along(world: World, hub: HubStandIn) -> None:
    await ask(replace(world, hub_token="hf_servers_own"), "datasets.search", query="sums")
    assert all("authorization" not in asked.headers for asked in hub.server.asked) and hub.server.asked
