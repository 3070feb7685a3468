"""The server's log: no secret in it, and no character that a terminal obeys.

Done where a record is made, because handlers and their formatters belong to whoever runs the server.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Sequence
from typing import Any

from bot.domain.redaction import redact

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_known: set[str] = set()


def redact_logs(known: Sequence[str]) -> None:
    """From now on every record of this process is made without secrets; `known` adds exact values."""
    _known.update(known)
    logging.setLogRecordFactory(_record)


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        # On one line: a text from outside cannot write what looks like a record of ours.
        return _clean(super().getMessage()).replace("\n", "\\n")


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _Record(*args, **kwargs)
    if record.exc_info and record.exc_info[0] is not None:
        # A formatter takes this text where there is one.
        record.exc_text = _clean("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    if record.stack_info:
        record.stack_info = _clean(record.stack_info)
    return record


def _clean(text: str) -> str:
    cleaned = redact(text, sorted(_known))
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), cleaned)
