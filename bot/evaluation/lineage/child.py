"""Checks one model's lineage as a process of its own: `python -m bot.evaluation.lineage.child`, a request as JSON on
standard input.

A process, because numpy and a large model's weights are then nothing that the server holds, and because the model was
written by a job: what goes wrong in reading it ends here. It ends itself at its deadline.

    {"model", "base", "published": [FILE, ...], "adapter", "start", "from_scratch", "template_asked", "seconds"}
        -> Lineage.as_dict()
    -> {"error": one sentence}
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from bot.errors import UserError
from bot.evaluation.lineage.check import lineage
from bot.evaluation.lineage.published import read_table

MOST_MEMORY = 4 << 30
"""Bytes of data beside the mapped files, of which a piece at a time is read: for headers and tokenizers."""


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    signal.alarm(int(request["seconds"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    try:
        answer = checked(request)
    except (UserError, OSError, MemoryError) as error:
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer))


def checked(request: dict[str, Any]) -> dict[str, Any]:
    published = [each for file in request["published"] for each in read_table(Path(file))]
    folders = {key: Path(request[key]) if request.get(key) else None for key in ("adapter", "start")}
    found = lineage(
        Path(request["model"]),
        Path(request["base"]),
        published=published,
        adapter=folders["adapter"],
        start=folders["start"],
        from_scratch=bool(request.get("from_scratch")),
        template_asked=bool(request.get("template_asked")),
    )
    return found.as_dict()


if __name__ == "__main__":
    main()
