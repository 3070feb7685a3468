"""The last step: the job fails when its mode failed, and in mode `gate` only when the head is significantly worse."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from actions.result import Result
from actions.workflow_commands import annotate


def main() -> int:
    result = Result.read(Path(os.environ["POSTDOC_FOLDER"]))
    if result is None:
        annotate("error", "The step that does the work ended without a result.", title="Postdoc")
        return 1
    if result.mode == "gate" and result.comparison is not None:
        level = {"failed": "error", "neutral": "notice"}.get(result.state)
        if level:
            annotate(level, result.headline, title=f"Postdoc gate: {result.comparison.verdict}")
    print(f"postdoc {result.mode}: {result.state}. {result.headline}", flush=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
