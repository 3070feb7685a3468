"""The record: a goal's journal as it travels in the bot's own commits, sealed, so that a lost database is no loss.

`experiments/<folder>/journal.jsonl` holds one event a line and a last line that seals them: HMAC-SHA256 over the
goal's id and every line before it. The key is derived from the App's private key, so whoever can push to the branch can
delete or spoil a record, and can neither forge a consent nor pass off another goal's. An older record of the same goal
stays genuine; whoever restores takes the longest that is to be found.

What may not stand in a comment may not stand here: every text passes `redact`, and folders of the server's machine are
blanked. Such a text comes back blanked; nothing that is decided rests on it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bot.domain.experiment import Event, EventKind, Experiment
from bot.domain.goal import GoalId
from bot.domain.redaction import redact
from bot.domain.scripts import COLUMNS
from bot.errors import PostdocError, SettingsError
from bot.loop.journal import Journal

NAME = "journal.jsonl"
ATTRIBUTES = b"".join(
    pattern + b" linguist-generated\n" for pattern in (b"journal.jsonl", b"runs/**", COLUMNS.encode() + b"/**")
)
"""GitHub folds files with this attribute in a diff."""
FORMAT = 1
BLANK = "…"
_SHORTEST_FOLDER = 5
"""A folder named with fewer characters (`/`, `/tmp`) is not blanked: it tells nothing and would blank much."""


UNSEALED = b"postdoc: nobody keeps a key here"
"""Where no key is kept: what is sealed with it is told from a torn file, and from nothing else."""


class BadRecord(PostdocError):
    """A committed journal that is not taken; the text says why."""


def seal_key(private_key: str) -> bytes:
    """32 bytes that only who holds the App's private key (PEM) can derive.

    Raises: SettingsError when it is not a private key.
    """
    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError("The App's private key cannot be read; download it again from the App's page.") from error
    # The same key in another wrapping (PKCS#1, PKCS#8, other line breaks) derives the same.
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"postdoc journal record").derive(plain)


def key_of(secret: str) -> bytes:
    """32 bytes of a secret text, where there is no App and so no private key. Empty: `UNSEALED`."""
    if not secret:
        return UNSEALED
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"postdoc journal secret").derive(secret.encode())


class Record:
    """Writes a goal's record and reads it back."""

    def __init__(
        self,
        journal: Journal,
        keys: Sequence[bytes],
        *,
        known_secrets: Sequence[str] = (),
        folders: Iterable[Path] = (),
    ) -> None:
        """The first of `keys` seals; the others are those of retired private keys, which may still be read.
        `folders` are places of this machine whose names stay here."""
        self._journal, self._keys, self._known_secrets = journal, tuple(keys), tuple(known_secrets)
        names = {str(folder) for folder in folders} | {str(folder.resolve()) for folder in folders}
        self._folders = sorted((name for name in names if len(name) >= _SHORTEST_FOLDER), key=len, reverse=True)

    def files(self, x: Experiment) -> dict[str, bytes]:
        """What a commit carries along: the journal up to the decision to make this commit. Blocks on the database.

        Up to there and no further, because whoever restores it decides the same again, under the same keys.
        """
        events = self._journal.read(x.goal_id)[: x.length]
        return {f"{x.folder}/{NAME}": self.sealed(x.goal_id, events), f"{x.folder}/.gitattributes": ATTRIBUTES}

    def sealed(self, goal_id: GoalId, events: Sequence[Event], doing: Mapping[str, Any] | None = None) -> bytes:
        """`doing` is what was decided on these events and not recorded yet, where the record is all that is kept."""
        lines = b"".join(_line(self._public(_as_dict(event))) for event in events)
        told = {"doing": self._public(dict(doing))} if doing is not None else {}
        seal = {"record": FORMAT, "goal": goal_id, "events": len(events), **told}
        return lines + _line(seal | {"seal": _mac(self._keys[0], goal_id, len(events), _with(lines, told))})

    def read(self, goal_id: GoalId, content: bytes) -> list[Event]:
        """The events of a record of this goal.

        Raises: BadRecord when it is not one of ours for this goal, byte for byte as it was written.
        """
        return self.read_whole(goal_id, content)[0]

    def read_whole(self, goal_id: GoalId, content: bytes) -> tuple[list[Event], dict[str, Any] | None]:
        """The same, and what was being done when it was written. Raises: BadRecord."""
        lines, _, last = content.removesuffix(b"\n").rpartition(b"\n")
        lines = lines + b"\n" if lines else b""
        try:
            seal = json.loads(last)
            form, goal, count, mac = seal["record"], seal["goal"], seal["events"], str(seal["seal"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadRecord("its last line is no seal") from error
        if form != FORMAT:
            raise BadRecord(f"its format {str(form)[:20]} is not the one this version reads ({FORMAT})")
        if goal != goal_id:
            raise BadRecord("it is the record of another goal")
        told = {"doing": seal["doing"]} if "doing" in seal else {}
        if not any(hmac.compare_digest(_mac(key, goal_id, count, _with(lines, told)), mac) for key in self._keys):
            raise BadRecord("its seal does not fit: it was changed, or made with another private key")
        events = [_event(json.loads(line)) for line in lines.splitlines()]
        if [event.seq for event in events] != list(range(count)):
            raise BadRecord("its events are not in order")
        return events, told.get("doing")

    def sealed_note(self, name: str, value: Mapping[str, Any]) -> bytes:
        """One JSON value that belongs to `name` and to nothing else."""
        line = _line(self._public(dict(value)))
        return line + _line({"record": FORMAT, "note": name, "seal": _mac(self._keys[0], GoalId(name), "note", line)})

    def read_note(self, name: str, content: bytes) -> dict[str, Any]:
        """What `sealed_note` wrote. Raises: BadRecord."""
        line, _, last = content.removesuffix(b"\n").rpartition(b"\n")
        line += b"\n"
        try:
            seal, value = json.loads(last), json.loads(line)
            mac, same = str(seal["seal"]), seal["note"] == name and isinstance(value, dict)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadRecord("it is no sealed note") from error
        if not same or not any(hmac.compare_digest(_mac(k, GoalId(name), "note", line), mac) for k in self._keys):
            raise BadRecord("its seal does not fit: it was changed, or made with another key")
        return dict(value)

    def public(self, text: str) -> str:
        """`text` as a record carries it."""
        for folder in self._folders:
            text = text.replace(folder, BLANK)
        return redact(text, self._known_secrets)

    def _public(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.public(value)
        if isinstance(value, dict):
            return {self.public(key): self._public(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._public(inner) for inner in value]
        return value


def _as_dict(event: Event) -> dict[str, Any]:
    return {"seq": event.seq, "kind": str(event.kind), "key": event.key, "at": event.at, "data": dict(event.data)}


def _event(found: dict[str, Any]) -> Event:
    try:
        kind = EventKind(found["kind"])
    except ValueError as error:
        raise BadRecord(f"a newer version of Postdoc wrote it (event {str(found['kind'])[:40]})") from error
    return Event(found["seq"], kind, found["key"], found["at"], found["data"])


def _line(value: dict[str, Any]) -> bytes:
    # In the order of the journal, not sorted: the order of keys is the order in which a change names them.
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _with(lines: bytes, told: Mapping[str, Any]) -> bytes:
    return lines + (_line(dict(told)) if told else b"")


def _mac(key: bytes, goal_id: GoalId, count: object, lines: bytes) -> str:
    head = f"{FORMAT}\n{goal_id}\n{count}\n".encode(errors="surrogatepass")
    return hmac.new(key, head + lines, hashlib.sha256).hexdigest()
