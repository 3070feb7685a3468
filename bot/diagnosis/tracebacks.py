"""Finds the traceback that ends a log, among those that were caught, quoted, generated, or of other processes.

Not covered: text without a mark of its own that looks like a traceback from the first column on and is the last thing
that a log says.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise

_TRACEBACK = "Traceback (most recent call last):"
TRACEBACK_CHARACTERS = 60_000
"""Of one traceback: a notebook shows some ten lines of source for every frame."""
LINES_AFTER = 200
"""† Lines that launchers and trackers print when a process has failed; what prints more has gone on."""
NEAR = 500
"""Characters before a traceback in which the line above it is looked for."""
QUOTED_CHARACTERS = 4000
"""† Of a traceback that is somebody's text, as far as its exception."""


def last_traceback(log: str) -> tuple[str, str]:
    """(the traceback with which the process ended, as the interpreter writes it; the log without those that are only
    text). The first is empty where none is."""
    log = _of_one_process(_plain(log))
    quoted: list[int] = []
    traceback = _ending(log, quoted)
    for start in quoted:  # from the last to the first, so that what lies before stays where it is
        log = log[:start] + log[_end_of(log, start, start + QUOTED_CHARACTERS) :]
    return traceback, log


def _ending(log: str, quoted: list[int]) -> str:
    """The last traceback, unless all it says is that some child process failed: then the one before it. Notes where
    tracebacks stand that are text."""
    end, last = len(log), True
    while (start := log.rfind(_TRACEBACK, 0, end)) >= 0:
        text = _own(log, start, end)
        if text is None:
            quoted.append(start)
            end = start
            continue
        # `Exception ignored in: ...` is printed while the interpreter shuts down and changes nothing.
        before = log[max(0, start - NEAR) : start].rstrip().rsplit("\n", 1)[-1]
        ignored = before.startswith("Exception ignored") and last
        if ignored or went_on(log[start:]) or (last and _lines(log[_end_of(log, start, len(log)) :]) > LINES_AFTER):
            quoted.append(start)
            return ""
        if not _CHILD_FAILED.search(text):
            return text
        end, last = start, False
    return ""


# --- a traceback, or text that holds one

_FRAME = re.compile(r'\s+(?:File ".+", line \d+|\+ )')
_EXCEPTION = re.compile(
    r"(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Z]\w{0,60}(?:Error|Exception|Interrupt|Exit|Warning|Exhausted)\b"
)
# tqdm leaves no line break behind its bar: `  5%|5    | 5/100 [00:30<09:30,  6.00s/it]`.
_BAR = re.compile(r"(\d+)/(\d+) \[[^\]\n]*(?:it/s|s/it)[^\]\n]*\]")
_FENCE = "```"


def _own(log: str, start: int, end: int) -> str | None:
    """The traceback at `start`, None where it is somebody's text: it begins a line, behind nothing or a progress bar,
    or every line of it has the same mark of a logger or a process before it."""
    line_start = max(log.rfind("\n", 0, start), log.rfind("\r", 0, start)) + 1
    mark = log[line_start:start]
    before = log[max(0, line_start - NEAR) : line_start]
    text = log[start : min(end, start + TRACEBACK_CHARACTERS)]
    head, _, body = text.partition("\n")
    if head.strip() != _TRACEBACK or (before.rstrip().endswith(_FENCE) and _FENCE in _following(log, start)):
        return None
    bar = _BAR.search(mark)
    if not mark or (bar is not None and not mark[bar.end() :].strip()):
        first = body.split("\n", 1)[0]
        if _RULED.search(before):
            return text  # a notebook's, whatever its frames look like
        return text if _FRAME.match(first) or _EXCEPTION.match(first) or not body.strip() else None
    if not any(character.isalnum() for character in mark):
        return None
    # The same words before every line; times and process numbers in them may differ.
    same = re.compile("".join(r"\d+" if part.isdecimal() else re.escape(part) for part in _DIGITS.split(mark)))
    lines = [line[found.end() :] for line in body.split("\n") if (found := same.match(line))]
    return "\n".join([_TRACEBACK, *lines]) if lines and _FRAME.match(lines[0]) else None


_DIGITS = re.compile(r"(\d+)")
_RULED = re.compile(r"-{40,}\s*\Z")


def _end_of(log: str, start: int, reach: int) -> int:
    """Behind the line that names the exception, which is looked for as far as `reach`; else behind the first line."""
    at = start + len(_TRACEBACK)
    found = _EXCEPTION_LINE.search(log, at, reach)
    return found.end() if found is not None else at


_EXCEPTION_LINE = re.compile(rf"^[^\n]{{0,80}}?{_EXCEPTION.pattern}[^\n]*", re.MULTILINE)


# --- what comes after it

# Records of training, as transformers' Trainer and most loops of people's own print them: after two of them a traceback
# was caught by something, or was of an attempt before this one.
_RECORD = re.compile(
    r"\{'(?:loss|eval_loss|reward|train_runtime)': "
    r"|^[^\n]{0,80}\b(?:step|iter(?:ation)?|epoch)\b\W{0,3}\d+[^\n]{0,60}\bloss\b\W{0,3}\d",
    re.MULTILINE | re.IGNORECASE,
)
_CHILD_FAILED = re.compile(r"ChildFailedError|^subprocess\.CalledProcessError", re.MULTILINE)


def went_on(after: str) -> bool:
    """Training was seen in what the log says after a failure. One record may have waited in a buffer, and every bar is
    shown once more when it is closed."""
    if len(_RECORD.findall(after)) > 1:
        return True
    reached: dict[str, list[int]] = defaultdict(list)
    for done, total in _BAR.findall(after):
        reached[total].append(int(done[:12]))
    return any(b > a for told in reached.values() for a, b in pairwise(told))


def _following(log: str, start: int) -> str:
    """What stands close behind the traceback at `start`."""
    end = _end_of(log, start, start + QUOTED_CHARACTERS)
    return log[end : end + NEAR]


def _lines(text: str) -> int:
    return sum(1 for line in text.split("\n") if line.strip())


# --- as the interpreter writes it

# Colours, as terminals and notebooks keep them; and notebooks' own form of a traceback, old and new (IPython 7 and 8).
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOTEBOOK_HEAD = re.compile(r"^[A-Z][\w.]* {2,}Traceback \(most recent call last\):?$", re.MULTILINE)
_NOTEBOOK_FRAME = re.compile(r"^File (\S[^\n:]{0,300}(?::\\[^\n:]{1,300})?):(\d+), in ([\w.<>]+)\(.*$", re.MULTILINE)
_NOTEBOOK_CELL = re.compile(r"^(?:Cell )?(In ?\[\d+\]), line (\d+).*$", re.MULTILINE)
_OLD_FRAME = re.compile(
    r"^(\S{1,300}\.py|<ipython-input-[\w-]+>) in ([\w.<>]+)(?:\(.*)?\n((?:.*\n){0,8}?-{2,}> ?(\d+))", re.MULTILINE
)
_NOTEBOOK_CONTEXT = re.compile(r"^ *(?:\d+(?: .*)?|\(\.\.\.\))\n", re.MULTILINE)
_NOTEBOOK_LINE = re.compile(r"^-+> ?\d+ ?(.*)$", re.MULTILINE)


def _plain(log: str) -> str:
    """The log as a terminal without colours would show it, notebooks' tracebacks as the interpreter writes them."""
    log = _COLOUR.sub("", log)
    if _NOTEBOOK_HEAD.search(log) is None:
        return log
    log = _NOTEBOOK_HEAD.sub(_TRACEBACK, log)
    log = _NOTEBOOK_FRAME.sub(r'  File "\1", line \2, in \3', log)
    log = _NOTEBOOK_CELL.sub(r'  File "\1", line \2, in <module>', log)
    log = _OLD_FRAME.sub(r'  File "\1", line \4, in \2\n\3', log)
    # Lines around the one that failed are the script's text, not what happened.
    return _NOTEBOOK_LINE.sub(r"    \1", _NOTEBOOK_CONTEXT.sub("", log))


# PyTorch's own hook marks the lines of an uncaught exception so, once there are several processes.
_RANK = re.compile(r"^\[rank(\d+)\]: ?(?!\[)", re.MULTILINE)
_FIRST_TO_FAIL = re.compile(r"^\[rank(\d+)\]: Traceback", re.MULTILINE)


def _of_one_process(log: str) -> str:
    """The log without the marks of its processes. Of several that failed the first alone is kept: their lines may be
    mixed, and the others' failures follow from its own."""
    first = _FIRST_TO_FAIL.search(log)
    if first is None:
        return log
    marked = ((line, _RANK.match(line)) for line in log.split("\n"))
    return "\n".join(line[m.end() :] if m else line for line, m in marked if m is None or m[1] == first[1])
