"""The pages in a real browser: nothing is blocked or overflows, and an open page follows while somebody types.

Skipped where there is no Chromium. It is driven over a pipe (`--remote-debugging-pipe`), so no port is opened.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.practice.pages_browser import Browser
from tests.practice.pages_world import World, running

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
# Chromium reads its commands from descriptor 3 and answers on 4.
LAUNCH = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"


class Tab:
    """One tab of a Chromium, spoken to in its debugging protocol: JSON texts that end in a zero byte."""

    def __init__(self, folder: str) -> None:
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()
        ends = [str(to_read), str(to_write)]
        command = [sys.executable, "-c", LAUNCH, *ends, CHROMIUM or "", f"--user-data-dir={folder}", *FLAGS]
        self.process = subprocess.Popen(
            command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.count, self.complaints = b"", 0, list[str]()
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(answer["params"])[:400])
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            got = os.read(self.read_end, 1 << 16)
            assert got, "Chromium ended"
            self.buffer += got
        text, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(text))

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, awaitPromise=True)["result"].get("value")

    def until(self, expression: str, timeout_seconds: float = 20.0) -> None:
        end = time.monotonic() + timeout_seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def visit(self, url: str, width: int = 1280) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def close(self) -> None:
        self.session = ""
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self.process.kill()
        self.process.wait(timeout=20)
        os.close(self.write_end)
        os.close(self.read_end)


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
