"""The practice world: a forge with one team's repository on a loopback port, and the real bot beside it.

Everything lies in one folder, so that a person can look at it afterwards:

    git/<owner>/<name>.git       the repository (bare): git -C ... log --oneline --all --graph
    bot/                         the bot's data: journal, jobs, traces, trained models
    models/postdoc/tiny-qwen3    the base model, a link into the user's cache
    app.pem, bot.log             the App's key and what the bot's process said

The bot is a process of its own and knows the forge by its address alone. An issue may be opened before the bot
listens: its delivery then fails, as it would on GitHub, and the bot asks for it again as soon as it is up, as it does
for everything that was sent while it was away. The same road serves the first start (building the base model takes
minutes), every later start and a bot that was killed and started again.
"""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from bot.errors import PlatformError, UserError
from bot.practice.forge import Forge
from bot.practice.server import serve

APP_SLUG = "postdoc"
APP_PERMISSIONS = {
    "contents": "write",
    "issues": "write",
    "pull_requests": "write",
    "checks": "write",
    "actions": "write",
}
APP_EVENTS = (
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "check_run",
    "push",
    "workflow_run",
    "workflow_job",
)
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Person:
    login: str
    name: str
    permission: str
    """read, triage, write, maintain or admin."""


@dataclass(frozen=True, slots=True)
class Place:
    """The team and the repository that the forge holds."""

    owner: str
    repository: str
    people: tuple[Person, ...]
    """The first of them maintains the repository."""
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    """Content of the first commit."""
    source: Path | None = None
    """A git repository on this machine; its HEAD becomes the default branch, and `files` is not used."""
    description: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repository}"


def _no_jobs(_: Path) -> None:
    """Ends nothing."""


class PracticeWorld:
    """The forge runs from `with` on; the bot from `start_bot` on; both have stopped when the block ends.

    `end_jobs` is given the bot's data folder once the bot has stopped: a job outlives its bot on purpose, so whoever
    takes the world away has to end what still runs. `settings` are further `POSTDOC_*` variables of the bot.
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        *,
        port: int = 0,
        models: Mapping[str, Path] | None = None,
        settings: Mapping[str, str] | None = None,
        end_jobs: Callable[[Path], None] = _no_jobs,
    ) -> None:
        self.folder, self.place = folder.resolve(), place
        self._port, self._settings, self._end_jobs = port, dict(settings or {}), end_jobs
        self._models = dict(models or {})
        self._stack = ExitStack()
        self._bot: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}
        self.url = ""
        """Of the forge and its pages."""
        self.bot_url = ""

    # Starting and stopping

    def __enter__(self) -> PracticeWorld:
        try:
            self._open_forge()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with uninterrupted():
            try:
                self.stop_bot()
                self._end_jobs(self.data_folder)
            finally:
                self._stack.close()

    def _open_forge(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        forge = self.forge = Forge(self.folder / "git")
        self._stack.callback(forge.close)
        for person in self.place.people:
            forge.add_user(person.login, name=person.name)
        self._fill_repository()
        for person in self.place.people:
            forge.add_collaborator(self.place.full_name, person.login, person.permission)
        try:
            self.url = self._stack.enter_context(serve(forge, port=self._port))
        except (OSError, OverflowError) as error:
            raise UserError(f"The forge cannot listen on port {self._port}: {error}. Give another --port.") from error
        bot_port = free_port()
        self.bot_url = f"http://127.0.0.1:{bot_port}"
        self._secret = secrets.token_hex(20)
        self.app = forge.register_app(
            slug=APP_SLUG, name="Postdoc", permissions=APP_PERMISSIONS, events=APP_EVENTS,
            webhook_url=f"{self.bot_url}/webhook", webhook_secret=self._secret,
        )  # fmt: skip
        self.key_path.touch(mode=0o600)
        self.key_path.write_text(self.app.private_key_pem, encoding="ascii")
        forge.install_app(self.app.app_id, self.place.full_name)
        self._client = self._stack.enter_context(httpx.Client(trust_env=False, timeout=30.0))

    def _fill_repository(self) -> None:
        place = self.place
        if place.source is None:
            self.forge.add_repository(place.owner, place.repository, place.files, description=place.description)
            return
        self.forge.add_repository(place.owner, place.repository, description=place.description)
        done = subprocess.run(
            ["git", "push", "--quiet", str(self.repository), "HEAD:refs/heads/main"],
            cwd=place.source, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["git push failed"])[-1]
            raise UserError(f"The repository at {place.source} cannot be copied to the practice forge: {said}")

    @property
    def key_path(self) -> Path:
        return self.folder / "app.pem"

    @property
    def data_folder(self) -> Path:
        return self.folder / "bot"

    @property
    def log_path(self) -> Path:
        return self.folder / "bot.log"

    @property
    def repository(self) -> Path:
        """The bare git repository on disk."""
        return self.folder / "git" / self.place.owner / f"{self.place.repository}.git"

    def page(self, path: str = "") -> str:
        """The address of a page of the repository: `issues/1`, `pulls`."""
        return f"{self.url}/{self.place.full_name}" + (f"/{path}" if path else "")

    def start_bot(self) -> None:
        """Start the bot's process and wait until it is ready; what it missed meanwhile it asks for by itself.

        Raises: PlatformError when it does not come up.
        """
        self._link_models()
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches this process, which then stops the bot in order.
            self._bot = subprocess.Popen(
                [sys.executable, "-m", "bot", "serve"],
                cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._wait_until_ready(time.monotonic() + START_SECONDS)

    def _link_models(self) -> None:
        for name, path in self._models.items():
            link = self.folder / "models" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path, target_is_directory=True)

    def _environment(self) -> dict[str, str]:
        """This process's environment with the bot's settings; settings for some other server are left out."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTDOC_")}
        python_path = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return inherited | {
            "PYTHONPATH": os.pathsep.join(python_path),
            "POSTDOC_APP_ID": str(self.app.app_id),
            "POSTDOC_PRIVATE_KEY_PATH": str(self.key_path),
            "POSTDOC_WEBHOOK_SECRET": self._secret,
            "POSTDOC_GITHUB_URL": f"{self.url}/api/v3",
            "POSTDOC_HOST": "127.0.0.1",
            "POSTDOC_PORT": self.bot_url.rpartition(":")[2],
            "POSTDOC_DATA_FOLDER": str(self.data_folder),
            "POSTDOC_MODEL_FOLDERS": str(self.folder / "models"),
            # The practice forge counts requests as GitHub does, but nobody is disturbed by a fast writer there.
            "POSTDOC_WRITE_PAUSE_SECONDS": "0",
            "POSTDOC_WRITES_PER_HOUR": "0",
            "POSTDOC_ONBOARDING": "false",
            **self._settings,
        }

    def _wait_until_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.bot_runs:
                raise PlatformError(f"the bot did not start: {self.last_words()} (log: {self.log_path})")
            try:
                if self._client.get(f"{self.bot_url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_SECONDS)
        raise PlatformError(f"the bot was not ready after {START_SECONDS:.0f} s (log: {self.log_path})")

    @property
    def bot_runs(self) -> bool:
        return self._bot is not None and self._bot.poll() is None

    @property
    def bot_pid(self) -> int | None:
        return self._bot.pid if self._bot is not None else None

    @property
    def bot_exit_code(self) -> int | None:
        """Negative for the signal that ended it; None while it runs."""
        return self._bot.poll() if self._bot is not None else None

    def last_words(self) -> str:
        """The last line that the bot's process wrote."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return "it wrote nothing"
        return lines[-1] if lines else "it wrote nothing"

    def stop_bot(self, *, signal_number: int = signal.SIGTERM) -> None:
        """End the bot's process and wait for it; its jobs go on."""
        bot = self._bot
        if bot is None or bot.poll() is not None:
            return
        bot.send_signal(signal_number)
        try:
            bot.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            bot.kill()
            bot.wait()

    # What a person does

    def open_issue(self, login: str, title: str, body: str, labels: Sequence[str] = ()) -> int:
        """Open an issue as `login`. Raises: UserError when the forge refuses it."""
        issue = self._as_person(login, "POST", "issues", {"title": title, "body": body, "labels": list(labels)})
        return int(issue["number"])

    def comment(self, login: str, number: int, body: str) -> None:
        """Comment on an issue or pull request as `login`. Raises: UserError when the forge refuses it."""
        self._as_person(login, "POST", f"issues/{number}/comments", {"body": body})

    def _as_person(self, login: str, method: str, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        if login not in self._tokens:
            self._tokens[login] = self.forge.user_token(login)
        reply = self._client.request(
            method,
            f"{self.url}/api/v3/repos/{self.place.full_name}/{path}",
            json=payload,
            headers={"Authorization": f"Bearer {self._tokens[login]}"},
        )
        answer: dict[str, Any] = reply.json()
        if reply.is_error:
            raise UserError(f"The practice forge refused this ({reply.status_code}): {answer.get('message')}")
        return answer

    # What the bot says of itself

    def goals(self) -> list[dict[str, Any]]:
        """The goals that the bot knows; none while it cannot be reached."""
        found = self._ask_bot("/api/goals")
        return found if isinstance(found, list) else []

    def events(self, issue: int, after: int = -1) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """The goal's journal after event `after`, and the running job's progress; nothing while the bot is away."""
        found = self._ask_bot(f"/api/goals/{self.place.full_name}/{issue}/events", after=after)
        return (found["events"], found["progress"]) if isinstance(found, dict) else ([], None)

    def _ask_bot(self, path: str, **parameters: int) -> Any:
        try:
            reply = self._client.get(f"{self.bot_url}{path}", params=parameters)
        except httpx.TransportError:
            return None
        return reply.json() if reply.is_success else None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets no second, impatient Ctrl-C leave processes behind; what is done inside ends within seconds by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def free_port() -> int:
    """A loopback port that nobody else is given for as long as this process lives.

    It stays bound here without anybody listening, so that neither another program nor an outgoing connection gets it
    while a server is started or started again. Servers that set SO_REUSEADDR, as asyncio's do, may listen on it.
    """
    kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    atexit.register(kept.close)
    return int(kept.getsockname()[1])
