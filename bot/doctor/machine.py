"""What this machine can do, what the server still needs, and what to do about each missing thing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bot.config import cache_folder, load_settings
from bot.errors import SettingsError
from bot.practice.tiny_base import NAME, cached_path, is_built
from runners.doctor import Finding, examine

DEFAULT_PORT = 8787
NEEDED_VARIABLES = ("POSTDOC_APP_ID", "POSTDOC_PRIVATE_KEY_PATH", "POSTDOC_WEBHOOK_SECRET")
SERVER_VARIABLES = (*NEEDED_VARIABLES, "POSTDOC_PRIVATE_KEY")
KEYS = {
    "HF_TOKEN": "optional: set it to reach gated models and private data sets on the Hugging Face Hub",
    "ANTHROPIC_API_KEY": "optional: without it the playbook's rules choose each next change",
}


def examination(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Every finding about this machine and this user's settings."""
    python = environment.get("POSTDOC_JOB_PYTHON")
    return [
        *examine(Path(python) if python else None, _existing(cache_folder()), environment),
        _base_model(),
        _port(environment),
        _server(environment),
        *(_key(name, advice, environment) for name, advice in KEYS.items()),
    ]


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """The form of `--json`: the findings, and the strongest sandbox tier that works."""
    listed = list(findings)
    return {"sandbox_tier": best_tier(listed), "findings": [asdict(finding) for finding in listed]}


def best_tier(findings: Iterable[Finding]) -> str | None:
    """The strongest tier that works; the runner lists them in that order."""
    prefix = "sandbox "
    return next((each.name.removeprefix(prefix) for each in findings if each.name.startswith(prefix) and each.ok), None)


def report_lines(findings: Iterable[Finding]) -> list[str]:
    """The findings about the machine, for people: what is there, what is missing, and what to do about it."""
    listed = list(findings)
    tier = best_tier(listed)
    lines = [*finding_lines(listed), ""]
    lines.append(f" Jobs run in the sandbox tier {tier}." if tier else " No sandbox tier works: no job can run here.")
    return [*lines, summary_line(listed)]


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each finding, and one for what to do about it."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        mark = "✓" if finding.ok else "✗" if is_fault(finding) else "·"
        lines.append(f" {mark} {finding.name:<{width}}  {finding.detail}")
        if finding.advice:
            lines.append(f"   {'':<{width}}  → {finding.advice}")
    return lines


def is_fault(finding: Finding) -> bool:
    """Whether something has to be mended, rather than could be."""
    return not finding.ok and not finding.advice.startswith("optional")


def summary_line(findings: Iterable[Finding]) -> str:
    missing = sum(is_fault(finding) for finding in findings)
    return f" {missing} to look at (✗); what is marked · is optional." if missing else " Nothing is missing."


def _existing(folder: Path) -> Path:
    """The nearest folder upwards that is there: where the space would be taken from."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _base_model() -> Finding:
    path = cached_path()
    if is_built(path):
        return Finding("tiny base model", True, f"{NAME} at {path}")
    advice = (
        "optional: the demo builds it at its first start (about two minutes), or `python -m bot.practice.tiny_base`"
    )
    return Finding("tiny base model", False, "not built yet", advice)


def _port(environment: Mapping[str, str]) -> Finding:
    said = environment.get("POSTDOC_PORT", str(DEFAULT_PORT))
    name = f"port {said}"
    if not (said.isascii() and said.isdigit() and int(said) <= 65535):
        return Finding(name, False, "not a port", "set POSTDOC_PORT to a number from 0 to 65535")
    try:
        with socket.create_server(("127.0.0.1", int(said))):
            return Finding(name, True, "free on 127.0.0.1")
    except OSError as error:
        advice = "`postdoc serve --port N` takes another one"
        return Finding(name, False, f"cannot be listened on: {error.strerror}", advice)


def _server(environment: Mapping[str, str]) -> Finding:
    """Whether `postdoc serve` would start. Which variables are set is said, never what is in them."""
    there = [name for name in SERVER_VARIABLES if environment.get(name)]
    if not there:
        # Nobody is about to serve: the demo needs none of them.
        advice = f"optional: `postdoc serve` needs {', '.join(NEEDED_VARIABLES)}"
        return Finding("GitHub App", False, "none of the server's settings is set", advice)
    detail = f"set: {', '.join(there)}"
    try:
        load_settings()
    except SettingsError as error:
        needed = [name for name in NEEDED_VARIABLES if name not in there]
        if "POSTDOC_PRIVATE_KEY" in there and "POSTDOC_PRIVATE_KEY_PATH" in needed:
            needed.remove("POSTDOC_PRIVATE_KEY_PATH")
        return Finding("GitHub App", False, detail, f"set {', '.join(needed)}" if needed else str(error))
    return Finding("GitHub App", True, detail)


def _key(name: str, advice: str, environment: Mapping[str, str]) -> Finding:
    present = bool(environment.get(name))
    return Finding(name, present, "present" if present else "absent", "" if present else advice)
