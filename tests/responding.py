"""`postdoc respond` with a scripted runner, as a process of its own that tests may kill.

`python -m tests.responding ARGUMENTS` takes the command's arguments and reads, beside its usual environment:
  POSTDOC_TEST_RUNNER     folder of the ScriptedRunner
  POSTDOC_TEST_DEATHS     file of labels; the process kills itself at the first point whose label is not in it yet
  POSTDOC_TEST_DEATHS_AT  pattern; with it, only at points whose label it is found in
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bot.cli import run
from bot.serverless import process
from bot.serverless.happening import Happening
from bot.serverless.process import responded
from bot.serverless.report import Report
from bot.serverless.responder import Responder
from bot.serverless.settings import RespondSettings
from tests.fakes.runner import ScriptedRunner
from tests.serving import Deaths


def scripted(settings: RespondSettings, happening: Happening) -> Report:
    runner = ScriptedRunner(Path(os.environ["POSTDOC_TEST_RUNNER"]))
    deaths = Deaths(Path(path)) if (path := os.environ.get("POSTDOC_TEST_DEATHS")) else None
    responder = Responder(
        settings, runner=runner, at=deaths.at if deaths else None, on_write=deaths.on_write if deaths else None
    )
    return responded(settings, happening, responder)


def main() -> int:
    process.responded = scripted  # type: ignore[assignment]
    return run(["respond", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
