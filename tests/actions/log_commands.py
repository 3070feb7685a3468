"""The lines of a step's log as the runner reads them: commands obeyed, secrets masked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COMMAND = re.compile(r"^\s*::(?P<name>[A-Za-z][\w-]*)(?:\s+(?P<properties>[^:]*(?::(?!:)[^:]*)*))?::(?P<data>.*)$")
LEVELS = ("error", "warning", "notice")
_KNOWN = frozenset({*LEVELS, "debug", "group", "endgroup", "add-mask", "stop-commands", "echo", "add-matcher"})
_REMOVED = frozenset({"set-env", "add-path", "set-output", "save-state"})


@dataclass(frozen=True)
class Annotation:
    level: str
    message: str
    title: str = ""
    file: str = ""
    line: int | None = None
    step: str = ""


@dataclass
class Log:
    """Everything that a job printed, as a person would see it."""

    lines: list[str] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    masks: set[str] = field(default_factory=set)
    step: str = ""
    _resume: str = ""

    def write(self, line: str) -> None:
        """A line that a process printed."""
        if self._resume:
            if line.strip() == f"::{self._resume}::":
                self._resume = ""
            else:
                self.show(line)
            return
        found = _COMMAND.match(line)
        if found is None or found["name"] not in _KNOWN | _REMOVED:
            self.show(line)
            return
        properties = dict(_property(part) for part in (found["properties"] or "").split(",") if "=" in part)
        self._obey(found["name"], properties, _unescaped(found["data"]))
        self.show(line)

    def show(self, line: str) -> None:
        """A line of the runner itself, or one that is shown as it is; masked either way."""
        for secret in sorted(self.masks, key=len, reverse=True):
            line = line.replace(secret, "***")
        self.lines.append(line)

    def _obey(self, name: str, properties: dict[str, str], data: str) -> None:
        if name in LEVELS:
            line = int(properties["line"]) if properties.get("line", "").isdigit() else None
            told = Annotation(name, data, properties.get("title", ""), properties.get("file", ""), line, self.step)
            self.annotations.append(told)
        elif name == "add-mask":
            self.masks.update(part for part in (data, *data.splitlines()) if part.strip())
        elif name == "stop-commands":
            self._resume = data
        elif name in _REMOVED:
            self.show(f"Error: the command ::{name}:: is disabled")

    def end_step(self) -> None:
        """What one step has stopped, the next does not find stopped."""
        self._resume = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def _property(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip(), _unescaped(value.replace("%3A", ":").replace("%2C", ","))


def _unescaped(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
