"""The database is deleted at every point of a pursuit: the goal comes back from GitHub and goes on to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loop.test_recovery import difference, pursue, seen
from tests.world import practice_world


@pytest.mark.timeout(900)
def test_database_lost_before_and_after_every_action_and_write(tmp_path: Path) -> None:
    with practice_world(tmp_path / "undisturbed") as world:
        assert pursue(world) == 0
        expected = seen(world, 1)
    with practice_world(tmp_path / "lost", deaths=tmp_path / "deaths") as world:
        deaths = pursue(world, lose_database=True)
        found = seen(world, 1)
    points = (tmp_path / "deaths").read_text().splitlines()
    assert deaths == len(points)
    for what in expected:
        assert found[what] == expected[what], f"{what}:\n" + "\n".join(difference(expected[what], found[what]))
    assert len(set(found["launches"])) == len(found["launches"])
