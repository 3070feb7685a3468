"""The way through /setup in a real browser: nothing is blocked by the pages' own rules, nothing overflows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bot.practice.forge import Forge
from bot.practice.server import serve
from bot.practice.world import free_port
from tests.chromium import CHROMIUM, Tab
from tests.practice.pages_browser import Browser
from tests.server.test_setup import answers, until
from tests.world import ROOT

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"), pytest.mark.slow]
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


def test_app_is_registered_in_three_clicks(tmp_path: Path) -> None:
    forge = Forge(tmp_path / "forge")
    forge.add_user("ada")
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    with serve(forge) as github, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTDOC_")}
        environment = inherited | {
            "POSTDOC_GITHUB_URL": f"{github}/api/v3", "POSTDOC_PORT": str(port),
            "POSTDOC_DATA_FOLDER": str(tmp_path / "data"),
        }  # fmt: skip
        with (tmp_path / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bot", "serve", "--setup"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        tab = Tab(folder)
        try:
            person = Browser(github).sign_in("ada")
            for name, value in person.client.cookies.items():
                tab.call("Network.setCookie", name=name, value=value, url=github)
            person.close()
            until(lambda: answers(f"{here}/healthz", 200), "setup serves")
            tab.visit(f"{here}/setup", width=400)
            assert tab.value(FITS)
            tab.value(f"document.querySelector('#address').value = '{here}'")
            tab.value("document.querySelector('#name').value = 'A'")
            tab.value("document.querySelector('button').click()")
            tab.until("document.querySelector('dl') !== null && document.readyState === 'complete'")
            assert tab.value(FITS)
            tab.value("document.querySelector('button').click()")
            tab.until(f"location.href.startsWith('{github}/settings/apps/new') && document.readyState === 'complete'")
            tab.value("document.querySelector('form[action=\"/-/apps/new\"] button').click()")
            tab.until(f"location.href === '{here}/setup/done' && document.readyState === 'complete'")
            assert tab.value(FITS)
            assert tab.value("document.querySelector('a.button').href") == f"{github}/apps/a/installations/new"
            assert tab.complaints == []
            [app] = forge.apps.values()
            assert (app.slug, app.public) == ("a", False)
            until(lambda: answers(f"{here}/readyz", 200), "the App is served")
        finally:
            tab.close()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
            forge.close()
