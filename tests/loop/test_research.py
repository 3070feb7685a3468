"""A server that does research shows in the plan what it rests on; without the network, that too."""

from __future__ import annotations

from pathlib import Path

from tests.world import practice_world

NOWHERE = "http://127.0.0.1:9"
"""A proxy that nobody listens at: nothing leaves this machine, whatever a goal asks for."""


def test_plan_shows_where_its_recipe_comes_from_and_what_could_not_be_asked(tmp_path: Path) -> None:
    settings = {"POSTDOC_RESEARCH": "true", "HTTPS_PROXY": NOWHERE, "https_proxy": NOWHERE}
    with practice_world(tmp_path, settings=settings) as world:
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "proposed")
        [pull] = world.pulls()
        found = world.until_event(issue, "planned")["data"]["facts"]["research"]
    assert "Where the recipe comes from" in pull["body"]
    assert "| `learning_rate` |" in pull["body"]
    assert "- The budget is spent: " in pull["body"]
    rate = next(each for each in found["settings"] if each["key"] == "learning_rate")
    assert rate["default_source"].startswith("trl ")
    assert rate["source"]
    assert any("not a public one" in note for note in found["notes"])
    # Neither the repository's benchmark nor anything else left.
    assert not list((tmp_path / "data").rglob("research.jsonl"))
