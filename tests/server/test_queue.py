"""Places in line: a number only where everything before it is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.server.pages.queue import about, ordinal, start_estimates


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "expected"),
    [
        ([60.0, 300.0], [100.0, 100.0, 100.0], 2, [60.0, 160.0, 260.0]),
        ([60.0], [100.0, 50.0], 1, [60.0, 160.0]),
        ([], [100.0, 100.0], 1, [0.0, 100.0]),
        # One running job nobody knows about: it may end before the other, so no number is honest.
        ([None, 60.0], [100.0], 2, [None]),
        # The first in line is known to start in a minute, but not how long it takes.
        ([60.0], [None, 100.0], 1, [60.0, None]),
        ([None], [100.0], 2, [0.0]),
        ([10.0, 20.0, 30.0], [5.0], 2, [10.0]),
        ([], [], 1, []),
    ],
)
def test_start_is_estimated_first_come_first_served(
    running: list[float | None], waiting: list[float | None], slots: int, expected: list[float | None]
) -> None:
    assert start_estimates(running, waiting, slots) == expected


TIMES = st.none() | st.floats(0, 1e6)


@given(st.lists(TIMES, max_size=6), st.lists(TIMES, max_size=8), st.integers(1, 6))
def test_nobody_overtakes_and_nothing_follows_from_what_is_unknown(
    running: list[float | None], waiting: list[float | None], slots: int
) -> None:
    starts = start_estimates(running, waiting, slots)
    known = [start for start in starts if start is not None]
    assert len(starts) == len(waiting)
    assert known == sorted(known)
    # Once there is no number, there is none further back.
    assert starts == known + [None] * (len(starts) - len(known))


def test_places_and_times_are_said_as_people_say_them() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"
    ]  # fmt: skip
    assert [about(s) for s in (0, 59, 61, 840, 5_000, 5_400, 9_000)] == [
        "about a minute", "about a minute", "about 2 min", "about 14 min", "about 84 min", "about 2 h", "about 2 h"
    ]  # fmt: skip
