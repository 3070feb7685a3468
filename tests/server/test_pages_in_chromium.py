"""The server's pages in a real browser: wide and narrow, light and dark, with a keyboard, and without a script.

Skipped where there is no Chromium.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, Tab
from tests.server.pages_world import Story, every_state, make_bot, shown, started_jobs
from tests.world import REPOSITORY, practice_world

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
HERE = Path(__file__).parent
JUDGE, FOCUS = (HERE / "judge.js").read_text(encoding="utf-8"), (HERE / "focus.js").read_text(encoding="utf-8")
VIEWS = [(width, dark) for width in (400, 1400) for dark in (False, True)]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        opened = Tab(folder)
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(autouse=True)
def forgotten(tab: Tab) -> None:
    """Each test judges what it did itself, with the page's script running."""
    tab.complaints.clear()
    tab.requests.clear()
    tab.call("Emulation.setScriptExecutionDisabled", value=False)
    tab.call("Network.clearBrowserCookies")


def judged(tab: Tab, url: str, views: list[tuple[int, bool]] = VIEWS) -> list[str]:
    tab.visit(url, views[0][0])
    found = []
    for width, dark in views:
        tab.look(width, dark=dark)
        found += [f"{url} at {width}, {'dark' if dark else 'light'}: {each}" for each in tab.value(JUDGE)]
    return found


def test_every_page_can_be_read_wide_and_narrow_light_and_dark(tab: Tab, tmp_path: Path) -> None:
    bot = make_bot(tmp_path)
    made = every_state(bot)
    started_jobs(bot, made)
    bot.halted = lambda: "@ada wrote `/postdoc halt` in acme/maths."  # type: ignore[method-assign]
    goals = [made[name] for name in ("training", "awaiting consent", "needs author", "met", "baseline", "hostile",
                                     "without numbers", "forty runs", "foreign words", "plan")]  # fmt: skip
    with shown(bot) as url:
        wrong = []
        for path in ("/", "/?show=waiting", "/queue", "/spend", *(address(story) for story in goals)):
            wrong += judged(tab, url + path)
        assert wrong == []
        assert tab.complaints == []
        assert {request for request in tab.requests if not request.startswith((url, "about:"))} == set()


def test_first_pages_and_the_sign_in_can_be_read(tab: Tab, tmp_path: Path) -> None:
    bot = make_bot(tmp_path, api_token="a-token-for-tests")
    with shown(bot) as url:
        assert judged(tab, f"{url}/sign-in") == []
        tab.value("document.querySelector('#token').value = 'wrong'; document.querySelector('form').submit()")
        tab.until("document.querySelector('[role=alert]') !== null")
        assert "not the token" in tab.value("document.body.innerText")
        tab.complaints.clear()  # the 401 itself
        tab.value(
            "document.querySelector('#token').value = 'a-token-for-tests'; document.querySelector('form').submit()"
        )
        tab.until("document.querySelector('h1')?.textContent === 'Goals'")
        assert tab.value("document.cookie") == ""
        for path in ("/", "/queue", "/spend"):
            assert judged(tab, url + path) == []
        tab.value("document.querySelector('.leave button').click()")
        tab.until("location.pathname === '/sign-in' && document.readyState === 'complete'")
        tab.value(f"location.href = '{url}/queue'")
        tab.until("location.search === '?next=/queue' && document.querySelector('#token') !== null")
        assert tab.complaints == []


def test_keyboard_reaches_everything_and_shows_where_it_is(tab: Tab, tmp_path: Path) -> None:
    bot = make_bot(tmp_path)
    story = Story(bot, 1).understood().planned().say("consent_asked", head_sha="a" * 40)
    with shown(bot) as url:
        for dark in (False, True):
            tab.visit(url + address(story), 1400)
            tab.look(1400, dark=dark)
            names = list[object]()
            while (where := press_tab(tab)) is not None and len(names) < 40:
                assert where["seen"], where
                names.append(where["name"])
            for wanted in (
                "A Skip to the content",
                "A Postdoc",
                "A Queue",
                "A Spending",
                "BUTTON Copy",
                "A pull request #2",
            ):
                assert wanted in names
            assert len(names) == tab.value("document.querySelectorAll('a, button, summary').length")


def press_tab(tab: Tab) -> dict[str, object] | None:
    tab.press("Tab")
    found: dict[str, object] | None = tab.value(FOCUS)
    return found


def test_page_says_the_same_without_a_script(tab: Tab, tmp_path: Path) -> None:
    bot = make_bot(tmp_path)
    story = Story(bot, 1).understood().planned().agreed().trained(1, 0.4)
    with shown(bot) as url:
        tab.visit(url + address(story))
        with_script = tab.value("document.body.innerText")
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.visit(url + address(story))
        assert tab.value("document.body.innerText") == with_script
        assert tab.value("document.querySelectorAll('svg.mm').length") > 0


@pytest.mark.slow
def test_open_page_follows_a_real_pursuit_and_keeps_what_is_unfolded(tab: Tab, tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        script = world.runner.root / "script.json"
        outcomes = script.read_text()
        script.write_text(outcomes.replace('"train-01": {', '"train-01": {"hold": true, '))
        world.start()
        assert world.wait_ready()
        issue = world.open_goal()
        world.until_job("train")
        url = f"{world.bot_url}/goals/{REPOSITORY}/{issue}"
        tab.visit(url, 1400)
        tab.until("document.querySelector('#pending').innerText.includes('Step 100 of 100')")
        assert judged(tab, url) == []
        tab.value("window.same = true; document.querySelector('#keys').open = true")
        world.runner.release("train-01")
        assert world.until_ended(issue) == "met"
        tab.until("document.querySelector('#state').innerText.includes('confirmed on the sealed test')")
        assert tab.value("window.same") is True
        assert tab.value("document.querySelector('#keys').open") is True
        assert tab.value("document.querySelector('#pending').innerText.trim()") == ""
        rows = tab.value("[...document.querySelectorAll('#runs tbody tr')].map((row) => row.innerText)")
        assert len(rows) == 3 and "better" in rows[2]
        assert judged(tab, url) == []
        for path in ("/", "/queue", "/spend"):
            assert judged(tab, world.bot_url + path) == []
        assert tab.complaints == []
        assert all(request.startswith((world.bot_url, "about:")) for request in tab.requests)


def address(story: Story) -> str:
    return "/goals/" + story.goal_id.replace("#", "/")
