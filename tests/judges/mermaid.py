"""Mermaid's own parser as a long-lived Node process; see tests/node/mermaid_parser.mjs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from markdown_it import MarkdownIt

NODE = Path(__file__).resolve().parent.parent / "node"
_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def node_has(package: str) -> bool:
    """Whether Node and a package of tests/node are there. Raises: RuntimeError in CI when they are not."""
    if shutil.which("node") and (NODE / "node_modules" / package / "package.json").is_file():
        return True
    if os.environ.get("CI") == "true":
        raise RuntimeError(f"Node or its package {package} is missing: run `npm ci` in tests/node")
    return False


class MermaidParser:
    """`with MermaidParser() as parser: parser.complaint(chart)`."""

    def __enter__(self) -> MermaidParser:
        self._process = subprocess.Popen(
            ["node", "mermaid_parser.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=NODE
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=20)

    def complaint(self, chart: str) -> str | None:
        """What Mermaid objects to in a chart; None when nothing."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(chart) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Node process ended"
        found: str | None = json.loads(line)
        return found


def charts_in(markdown: str) -> list[str]:
    """The text of every Mermaid block that a renderer would draw."""
    return [
        token.content for token in _MARKDOWN.parse(markdown)
        if token.type == "fence" and token.info.split()[:1] == ["mermaid"]
    ]  # fmt: skip
