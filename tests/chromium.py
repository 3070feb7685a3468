"""A real headless browser for tests: one tab of a Chromium, driven over a pipe, so that no port is opened."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
# Chromium reads its commands from descriptor 3 and answers on 4.
LAUNCH = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"


class Navigated(AssertionError):
    """The page was left for another while it was being asked."""


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
        self.requests: list[str] = []
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
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
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self.count:
                if any(word in str(answer.get("error")) for word in ("navigated", "context")):
                    raise Navigated(answer)
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
        """What the expression comes to, as JSON would hold it."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Change the window and the colour scheme of the page that is open."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def until(self, expression: str, timeout_seconds: float = 20.0) -> None:
        end = time.monotonic() + timeout_seconds
        while True:
            with contextlib.suppress(Navigated):
                if self.value(expression):
                    return
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
