"""Reads a running job's log as it comes and sorts it into the job's store on this machine: one thread for each job.

The Hub gives a log from its first line whenever somebody connects, so after a broken connection, or a restart of the
bot, everything comes again; marks carry numbers, and what has been had is passed over. Two readers of one job write the
same pieces under the same names. Nobody ever waits for one.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from runners.hf_jobs.wire import LOG, METRICS, NOTE, STATUS, Mark, Signer
from runners.job import JobState, read_json
from runners.layout import write_json
from runners.remote import store as names

log = logging.getLogger("postdoc.hf_jobs")

POSITION = "stream.json"
_LOOSE_CHARACTERS = 1 << 20
"""Of lines that no mark has claimed yet; the front of more is dropped."""
_LONGEST_PAUSE_SECONDS = 30.0
_ENDED = frozenset(str(state) for state in JobState if state.ended)
_AGAIN_SECONDS = 0.1
"""Before a log without our last mark is read again."""


class Spool:
    """What has been read of one job's log, in a folder: pieces named by their mark's number, so that reading one again
    changes nothing."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._signer = signer
        self._position = folder / POSITION
        self._number = int((read_json(self._position) or {}).get("number", 0))
        self._loose: list[str] = []
        self._loose_size = 0
        self.ended = False
        """Whether the job's own last word has come."""
        self.last_line = ""
        """The last one that was no mark: what a container says that breaks before our code runs in it."""

    def rewind(self) -> None:
        """The log comes again from its first line."""
        self._loose, self._loose_size = [], 0

    def take(self, line: str) -> None:
        mark = self._signer.read(line)
        if mark is None:
            self._keep(line)
            return
        lines, self._loose, self._loose_size = self._loose, [], 0
        if mark.kind == STATUS and mark.data.get("state") in _ENDED:
            self.ended = True
        if mark.number <= self._number:
            return
        if lines:
            self._write_log(mark.number, lines)
        self._take_mark(mark)
        self._number = mark.number
        write_json(self._position, {"number": mark.number}, durable=False)

    def end(self) -> None:
        """The log has ended: what no mark has claimed is the end of it."""
        if self._loose:
            self._number += 1
            self._write_log(self._number, self._loose)
            write_json(self._position, {"number": self._number}, durable=False)
        self.rewind()

    def _keep(self, line: str) -> None:
        self.last_line = line.strip() or self.last_line
        self._loose.append(line)
        self._loose_size += len(line)
        while self._loose_size > _LOOSE_CHARACTERS:
            self._loose_size -= len(self._loose.pop(0))

    def _write_log(self, number: int, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        self._write(f"{names.LOG}{number:08d}.txt", text.encode("utf-8", "replace"))

    def _write(self, key: str, content: bytes) -> None:
        """In one step and without waiting for the disk: after a power cut the log is read again from its first line,
        and hundreds of pieces may come at once."""
        target = self._position.parent / key
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f".{target.name}")
        partial.write_bytes(content)
        os.replace(partial, target)

    def _take_mark(self, mark: Mark) -> None:
        match mark.kind:
            case _ if mark.kind == STATUS:
                self._write(names.STATUS, json.dumps(mark.data).encode())
            case _ if mark.kind == METRICS:
                rows = "".join(f"{row}\n" for row in mark.data)
                self._write(f"{names.METRICS}{mark.number:08d}.jsonl", rows.encode())
            case _ if mark.kind == NOTE:
                self._write(names.OUTPUTS_NOTE, json.dumps(mark.data).encode())
            case _:
                assert mark.kind == LOG, mark.kind  # it closes the lines before it


class Reader:
    """The thread that follows one job's log until the job has ended."""

    def __init__(self, spool: Spool, lines: Callable[[], Iterator[str]], name: str) -> None:
        """`lines` connects anew and gives the log from its first line; it ends when the job has."""
        self.spool = spool
        self._lines = lines
        self._name = name
        self.finished = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log of {name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody wants to know any more; a thread that waits for a line ends with the connection or the process."""
        self._stop.set()

    def _run(self) -> None:
        pause, before = 0.5, -1
        while not self._stop.is_set():
            self.spool.rewind()
            count = 0
            try:
                for line in self._lines():
                    self.spool.take(line)
                    count += 1
                    pause = 0.5
                    if self._stop.is_set():
                        return
                # The client takes a connection that breaks for the end when the job has ended meanwhile. A container
                # that broke before our code ran in it has no last mark: its log is whole when it comes twice the same.
                if self.spool.ended or count == before:
                    self.spool.end()
                    break
                before = count
                if self._stop.wait(_AGAIN_SECONDS):
                    return
                continue
            except Exception as error:
                # Whatever it is: the job goes on, and without its log nobody would see how.
                log.warning("the log of %s broke off: %s: %s", self._name, type(error).__name__, error)
            if self._stop.wait(pause):
                return
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
        self.finished.set()
