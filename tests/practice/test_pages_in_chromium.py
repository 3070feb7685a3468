"""The pages in a real browser: nothing is blocked or overflows, and an open page follows while somebody types.

Skipped where there is no Chromium. It is driven over a pipe (`--remote-debugging-pipe`), so no port is opened.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, Tab
from tests.practice.pages_browser import Browser
from tests.practice.pages_world import World, running

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def tab(world: World) -> Iterator[Tab]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        opened = Tab(folder)
        person = Browser(world.url).sign_in("ada")
        for name, value in person.client.cookies.items():
            opened.call("Network.setCookie", name=name, value=value, url=world.url)
        person.close()
        try:
            yield opened
        finally:
            opened.close()


def test_pages_fit_every_width_and_nothing_is_blocked(world: World, tab: Tab) -> None:
    number, head = world.pull()
    world.review(number, head)
    chart = "```mermaid\nxychart-beta\n title Loss\n line [3, 2, 1]\n```\n"
    world.check(head, status="completed", conclusion="success", output={"title": "done", "summary": chart})
    for path in (
        "/", "/acme/lab", "/acme/lab/issues/new?template=goal.yml", "/acme/lab/blob/main/src/model.py",
        f"/acme/lab/pull/{number}", f"/acme/lab/pull/{number}/files", f"/acme/lab/pull/{number}/checks",
    ):  # fmt: skip
        for width in (400, 1400):
            tab.visit(world.url + path, width)
            assert tab.value("document.documentElement.scrollWidth") <= width, (path, width)
    assert tab.complaints == []


def test_open_page_follows_and_keeps_what_is_typed_unfolded_and_scrolled(world: World, tab: Tab) -> None:
    number = world.issue("line\n\n" * 60 + "<details><summary>More</summary>\n\ninside\n\n</details>\n\n- [ ] Stop\n")
    tab.visit(f"{world.url}/acme/lab/issues/{number}")
    tab.value("document.querySelector('#comment').value = 'half a sentence'")
    tab.value("document.querySelector('.body details').open = true")
    tab.value("window.kept = document.querySelector('#comment'); window.kept.focus({preventScroll: true})")
    tab.value("window.scrollTo(0, 500)")
    world.ask(world.bot, "POST", f"/issues/{number}/comments", body="**Run 01** is better")
    tab.until("document.querySelector('#timeline').textContent.includes('Run 01')")
    made = world.ask(world.ada, "GET", f"/issues/{number}/comments")[0]["id"]
    world.ask(world.bot, "PATCH", f"/issues/comments/{made}", body="**Run 01** is worse")
    tab.until("document.querySelector('#timeline').textContent.includes('worse')")
    assert tab.value("document.querySelectorAll('#timeline .comment').length") == 1
    assert tab.value("document.querySelector('#comment').value") == "half a sentence"
    assert tab.value("document.querySelector('#comment') === window.kept && document.activeElement === window.kept")
    assert tab.value("document.querySelector('.body details').open") is True
    assert tab.value("window.scrollY") == 500
    assert tab.complaints == []


def test_box_is_ticked_in_place(world: World, tab: Tab) -> None:
    number = world.issue()
    made = world.ask(world.bot, "POST", f"/issues/{number}/comments", body="- [ ] Stop\n")["id"]
    tab.visit(f"{world.url}/acme/lab/issues/{number}")
    tab.value("window.same = true; document.querySelector('button.tick').click()")
    tab.until("document.querySelector('button.tick').getAttribute('aria-checked') === 'true'")
    end = time.monotonic() + 10
    while world.ask(world.ada, "GET", f"/issues/comments/{made}")["body"] != "- [x] Stop\n":
        assert time.monotonic() < end
    assert tab.value("window.same") is True
    assert tab.complaints == []
