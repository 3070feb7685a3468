"""A pursuit on a forge that limits, revokes and breaks off: the same ending, nothing twice, nobody hammered."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from tests.world import REPOSITORY, practice_world

PAUSE_SECONDS = 0.15
WAIT_SECONDS = 2
WRITES = {"POST", "PATCH", "PUT", "DELETE"}


@pytest.mark.slow
def test_pursuit_is_paced_and_outlives_limits_revoked_tokens_and_outages(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.environment["POSTDOC_WRITE_PAUSE_SECONDS"] = str(PAUSE_SECONDS)
        asked: list[tuple[float, str, str]] = []

        def spy(method: str, path: str) -> bool:
            asked.append((time.monotonic(), method, path))
            return False

        world.forge.faults.server_error(1, matches=spy)
        world.start()
        assert world.wait_ready()
        world.forge.faults.secondary_limit(
            1, retry_after_seconds=WAIT_SECONDS, matches=lambda method, path: method == "POST" and "comments" in path
        )
        world.forge.faults.server_error(1, matches=lambda _, path: path.endswith("/check-runs"))
        world.forge.faults.drop_connection(1, lambda method, path: path.endswith("/reviews"), performed=True)
        issue = world.open_goal()
        world.until(lambda: world.pulls(), "the pull request")
        with world.forge.lock:
            world.forge.tokens._installations.clear()
        assert world.until_ended(issue, 60) == "met"

        by_bot = [(at, method) for at, method, path in asked if method in WRITES and _written_by_bot(path)]
        gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(by_bot)]
        assert len(by_bot) > 10
        # The pause is between the sendings; on a busy machine now and then one gains on the one before.
        assert sorted(gaps)[len(gaps) // 5] > PAUSE_SECONDS * 0.8
        assert max(gaps) >= WAIT_SECONDS
        assert len(world.pulls()) == 1
        number = world.pulls()[0]["number"]
        firsts = [text.partition("\n")[0] for text in world.bot_comments(issue) + world.bot_comments(number)]
        assert len(firsts) == len(set(firsts))
        reviews = [each["body"].partition("\n")[0] for each in world.reviews(number)]
        assert len(reviews) == len(set(reviews)) == 2


def _written_by_bot(path: str) -> bool:
    """Everything but tokens and what the test itself does."""
    return "access_tokens" not in path and "/app/" not in path and path != f"/repos/{REPOSITORY}/issues"
