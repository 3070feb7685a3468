"""Long-lived git plumbing processes, so that a read or a commit does not pay for starting git each time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path
from typing import IO

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
}
"""Nothing of the person's own git settings (signing, hooks, aliases) reaches the forge's repositories."""


class GitError(Exception):
    """git refused; the text is its last line on stderr."""


def run_git(repository: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """One git command to its end. Raises: GitError."""
    done = subprocess.run(
        ["git", *arguments], cwd=repository, env=ENVIRONMENT, input=stdin, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitError(lines[-1] if lines else f"git {arguments[0]} exited with {done.returncode}")
    return done.stdout


class Plumbing:
    """One git command that answers questions over its pipes. Started at the first question, again after a failure."""

    def __init__(self, repository: Path, *arguments: str) -> None:
        self._repository = repository
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask_line(self, question: bytes) -> bytes:
        """Writes `question` and returns one line of answer, without its newline. Raises: GitError."""
        with self._lock:
            return self._exchange(question)

    def ask_lines(self, question: bytes, count: int) -> list[bytes]:
        """As `ask_line`, for `count` lines. Raises: GitError."""
        with self._lock:
            return [self._exchange(question), *(self._read_line() for _ in range(count - 1))]

    def ask_object(self, question: bytes) -> tuple[str, str, bytes] | None:
        """For `cat-file --batch`: (object id, type, content), or None when there is no such object."""
        with self._lock:
            header = self._exchange(question).decode(errors="replace").split(" ")
            if len(header) != 3 or not header[2].isdigit():
                return None
            assert self._process is not None and self._process.stdout is not None
            content = self._process.stdout.read(int(header[2]) + 1)[:-1]
            return header[0], header[1], content

    def ask_until(self, question: bytes, end: bytes) -> bytes:
        """Writes `question` and returns what comes before `end`, which the command echoes. Raises: GitError."""
        with self._lock:
            stdout = self._write(question)
            answer = b""
            while not answer.endswith(end):
                chunk = stdout.read1(1 << 16)  # type: ignore[attr-defined]
                if not chunk:
                    self._stop()
                    raise GitError(f"git {self._arguments[0]} ended")
                answer += chunk
            return answer[: -len(end)]

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _exchange(self, question: bytes) -> bytes:
        self._write(question)
        return self._read_line()

    def _write(self, question: bytes) -> IO[bytes]:
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                ["git", *self._arguments],
                cwd=self._repository,
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
        except BrokenPipeError:
            self._stop()
            raise GitError(f"git {self._arguments[0]} ended") from None
        return process.stdout

    def _read_line(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            self._stop()
            raise GitError(f"git {self._arguments[0]} refused")
        return line[:-1]

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
