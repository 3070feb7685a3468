"""Hugging Face Jobs and one runs repository, asked through `huggingface_hub`, with every refusal in a sentence.

The library's own defaults do not fit a server: it waits for ever, asks who it is before each call without a namespace,
and tells the Hub which program uses it. So the namespace is always given, the shared session gets a time-out, and Xet
and telemetry are off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, PostdocError, TransientError, UserError

_CALL_SECONDS = 60.0
"""Of silence in one request."""
_ATTEMPTS = 5
_LABEL_CHARACTERS = 63


class Hub:
    """One account's jobs, and the repository that they share."""

    def __init__(self, endpoint: str, token: str, namespace: str, repository: str) -> None:
        self.endpoint, self.namespace, self.repository = endpoint.rstrip("/"), namespace, repository
        self._token = token
        self._repository_checked = False

    @cached_property
    def _api(self) -> Any:
        # Read by the library when it is imported, which somebody else may have done already.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()

        # Xet keeps caches of its own that no limit here reaches; the Hub serves the same files without it.
        constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_TELEMETRY = True
        return HfApi(endpoint=self.endpoint, token=self._token)

    def call(self, what: str, act: Callable[[Any], Any]) -> Any:
        """`act` with the library's client. `what` continues "the Hub does not let this server".

        Raises: UserError, TransientError, PlatformError.
        """
        api = self._api
        from huggingface_hub import get_session

        # Its own is none at all: a Hub that accepts and never answers would hold the caller for ever.
        get_session().timeout = _CALL_SECONDS
        try:
            return act(api)
        except PostdocError:
            raise
        except Exception as error:
            problem = problem_of(error, what, self.namespace)
            if problem is None:
                raise
            raise problem from error

    # jobs

    def jobs(self, labels: Mapping[str, str], stages: Sequence[str] = ()) -> list[Any]:
        """Read page by page here: the library's own list tries each page six times, for minutes in all, and a bot that
        starts while the Hub is away would wait for it."""

        def every_page(_: Any) -> list[Any]:
            from huggingface_hub import JobInfo, get_session
            from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

            found: list[Any] = []
            url: str | None = f"{self.endpoint}/api/jobs/{self.namespace}"
            query = [("stage", stage) for stage in stages] + [("label", f"{k}={v}") for k, v in labels.items()]
            while url is not None:
                headers = build_hf_headers(token=self._token)
                response = get_session().get(url, params=query or None, headers=headers)
                hf_raise_for_status(response)
                found += [JobInfo(**each, endpoint=self.endpoint) for each in response.json()]
                url, query = response.links.get("next", {}).get("url"), []
            return found

        return list(self.call("list jobs", every_page))

    def job(self, handle: str) -> Any | None:
        """None when the Hub does not know it any more."""
        from huggingface_hub.errors import JobNotFoundError

        def ask(api: Any) -> Any:
            try:
                return api.inspect_job(job_id=handle, namespace=self.namespace)
            except JobNotFoundError:
                return None

        return self.call("look at jobs", ask)

    def run(self, **job: Any) -> str:
        """The new job's id. Never tried twice here: the caller looks first whether it is there."""
        return str(self.call("start jobs", lambda api: api.run_job(namespace=self.namespace, **job)).id)

    def cancel(self, handle: str) -> None:
        self.call("end jobs", lambda api: api.cancel_job(job_id=handle, namespace=self.namespace))

    def log(self, handle: str) -> Iterator[str]:
        """Every line from the first on, until the job has ended. Blocks between them."""
        return iter(self._api.fetch_job_logs(job_id=handle, namespace=self.namespace, follow=True))

    def hardware(self) -> list[Any]:
        return list(self.call("see the hardware of jobs", lambda api: api.list_jobs_hardware()))

    # scheduled jobs

    def schedule(self, **job: Any) -> str:
        make = "schedule jobs"
        return str(self.call(make, lambda api: api.create_scheduled_job(namespace=self.namespace, **job)).id)

    def scheduled(self, labels: Mapping[str, str]) -> list[Any]:
        return list(self.call("list scheduled jobs", lambda api: api.list_scheduled_jobs(
            labels=dict(labels), namespace=self.namespace)))  # fmt: skip

    def unschedule(self, handle: str) -> None:
        self.call("remove scheduled jobs", lambda api: api.delete_scheduled_job(
            scheduled_job_id=handle, namespace=self.namespace))  # fmt: skip

    # the runs repository

    def commit(self, message: str, files: Mapping[str, Path | bytes]) -> str:
        """The commit that holds the files; the repository is made, private, where it is not there."""
        self._check_repository()

        def add(api: Any) -> str:
            from huggingface_hub import CommitOperationAdd

            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            return str(api.create_commit(self.repository, operations, commit_message=message).oid)

        for attempt in range(_ATTEMPTS):
            try:
                return str(self.call(f"write {self.repository}", add))
            except TransientError:
                # Two commits at once: the later is told to look again.
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.1, 0.5) * 2**attempt)
        raise AssertionError

    def _check_repository(self) -> None:
        if self._repository_checked:
            return

        private = self.is_private()
        if private is None:
            make = f"make {self.repository}"
            self.call(make, lambda api: api.create_repo(self.repository, private=True, exist_ok=True))
            private = self.is_private()
        if not private:
            raise UserError(
                f"Everybody can see {self.repository} on the Hub, and the data of jobs goes there: make it private, or "
                "set POSTDOC_HF_JOBS_REPOSITORY to another name."
            )
        self._repository_checked = True

    def is_private(self) -> bool | None:
        """Whether the runs repository is; None when there is none."""

        def look(api: Any) -> bool | None:
            from huggingface_hub.errors import RepositoryNotFoundError

            try:
                return bool(api.model_info(self.repository, timeout=_CALL_SECONDS).private)
            except RepositoryNotFoundError:
                return None

        found = self.call(f"see {self.repository}", look)
        return None if found is None else bool(found)

    def fetch(self, path: str, target: Path, revision: str = "main") -> bool:
        """Download a file of the runs repository to `target`; False when it is not there."""

        def download(api: Any) -> bool:
            from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

            place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                os.replace(api.hf_hub_download(self.repository, path, revision=revision, local_dir=place), target)
            except RemoteEntryNotFoundError:
                return False
            except LocalEntryNotFoundError as error:  # what it says of a broken connection
                raise (error.__cause__ or error) from error
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return True

        return bool(self.call(f"read {self.repository}", download))

    def files(self, folder: str) -> list[str]:
        """Paths of the files right below `folder`."""

        def tree(api: Any) -> list[str]:
            from huggingface_hub.errors import EntryNotFoundError

            with contextlib.suppress(EntryNotFoundError):
                return [str(entry.path) for entry in api.list_repo_tree(self.repository, folder)]
            return []

        return list(self.call(f"read {self.repository}", tree))

    def is_public_model(self, name: str, revision: str) -> bool:
        """Whether anybody may fetch it, without a token or accepted terms."""

        def look(api: Any) -> bool:
            from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

            try:
                found = api.model_info(name, revision=revision, token=False, timeout=_CALL_SECONDS)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return False
            return not found.gated and not found.private

        return bool(self.call(f"look at {name}", look))

    def account(self, token: str) -> dict[str, Any]:
        """What the Hub says of a token and of whom it belongs to."""
        return dict(self.call("ask who it is", lambda api: api.whoami(token=token)))


def problem_of(error: BaseException, what: str, namespace: str) -> PostdocError | None:
    """The library's error as one sentence of the right class; None for what is a bug of ours."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return problem_of(error.__cause__, what, namespace)  # an upload's failure, wrapped with the file's name
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = str(getattr(error, "server_message", None) or "").strip()
    quoted = f" (the Hub says: {said[:200]})" if said else ""
    if status == 402:
        return UserError(
            f"The Hub account {namespace} has no credit for jobs{quoted}: add credit at "
            "https://huggingface.co/settings/billing (an organisation's on its own billing page), then start again."
        )
    if status == 401:
        return UserError(
            f"The Hub does not know this server's token any more, so it cannot {what}: replace POSTDOC_HUB_TOKEN."
        )
    if status == 403:
        return UserError(
            f"The Hub does not let this server {what} in {namespace}{quoted}: give POSTDOC_HUB_TOKEN the permission to "
            "start and manage jobs (job.write) there and write access to the runs repository."
        )
    if status == 404:
        return UserError(
            f"The Hub finds nothing to {what} in {namespace}{quoted}: check POSTDOC_HF_JOBS_NAMESPACE and "
            "POSTDOC_HF_JOBS_REPOSITORY, and that the token may see them."
        )
    if status in (400, 413, 422):
        return UserError(f"The Hub does not accept what was sent to {what}{quoted or f': {error}'}.")
    if status == 429:
        wait = response.headers.get("retry-after", "") if response is not None else ""
        seconds = float(wait) if wait.isdigit() else None
        return TransientError("the Hub asks for fewer requests (429)", retry_after_seconds=seconds)
    if status in (409, 412):
        return TransientError(f"the Hub was changed by somebody else meanwhile ({status})")
    if status is not None:
        return PlatformError(f"the Hub answers {status} when asked to {what}{quoted}")
    if type(error).__name__ == "HFValidationError":
        return UserError(f"The Hub cannot be asked to {what}: {error}")
    if isinstance(error, ValueError):  # an answer that its own client does not understand, or does not accept
        return PlatformError(f"the Hub answers in a form that is not known here when asked to {what}: {error}")
    if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
        return PlatformError(f"the Hub cannot be reached to {what}: {type(error).__name__}: {error}")
    return None


def label(text: str) -> str:
    """`text` as a label's value may stand on the Hub: letters, digits, `.`, `_` and `-`, and not long."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    if len(plain) <= _LABEL_CHARACTERS:
        return plain
    return f"{plain[: _LABEL_CHARACTERS - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
