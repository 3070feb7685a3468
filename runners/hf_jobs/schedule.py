"""Evaluations that Hugging Face Jobs starts by itself, by the clock: whether a published model still is what it was.

Each lies in the runs repository as `scheduled/NAME/` with its packed inputs; every execution leaves its outputs below,
in a folder named by the platform's job. Nothing of ours has to run meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bot.errors import UserError
from runners import intake
from runners.hf_jobs.backend import GRACE_SECONDS, HubJobs
from runners.hf_jobs.container import LAST_WORDS
from runners.hf_jobs.hub import label
from runners.hf_jobs.package import code_archive, sha256_of
from runners.hf_jobs.wire import NOTE, STATUS, Signer
from runners.job import JobSpec
from runners.remote import package
from runners.remote import store as names

KIND_LABEL, NAME_LABEL = "postdoc-kind", "postdoc-schedule"
_KIND = {KIND_LABEL: "reevaluation"}
_MOST_RESULT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One of them, as the Hub lists it."""

    id: str
    about: Mapping[str, Any]
    """What was asked for: `model`, `benchmark`, `split`."""
    every: str
    next_at: datetime | None
    last_at: datetime | None
    result: Mapping[str, Any] | None
    """The last execution's `out/evaluation.json`; None when there was none, or it did not succeed."""
    problem: str
    """Why the last execution has no result; empty when it has one, or there was none."""


class Schedules:
    def __init__(self, jobs: HubJobs) -> None:
        self._jobs = jobs

    def add(self, spec: JobSpec, every: str, about: Mapping[str, Any]) -> str:
        """Have `spec` executed by the clock `every` (five fields of cron, or @weekly); its id. `spec.origins` must
        name every mount: the container fetches them anew each time.

        Raises: UserError, also when the same is scheduled already.
        """
        name = str(spec.job_id)
        if same := self._jobs.hub.scheduled({NAME_LABEL: label(name)}):
            raise UserError(
                f"{about['model']} is evaluated by the clock already ({same[0].id}, `{same[0].schedule}`): remove that "
                f"one first, `postdoc reevaluate --remove {same[0].id}`."
            )
        flavor = self._jobs.flavor_for(spec)
        config = self._jobs.shared_config() | self._inputs(spec) | {
            "job": name, "folder": f"scheduled/{name}", "scheduled": True, "signed_as": f"scheduled/{name}",
            "origins": {}, "about": dict(about),
        }  # fmt: skip
        return self._jobs.hub.schedule(
            schedule=every,
            concurrency=False,
            timeout=int(spec.caps.timeout_seconds + GRACE_SECONDS),
            labels=_KIND | {NAME_LABEL: label(name), "name": label(f"postdoc-{name}")},
            **self._jobs.container(config, flavor),
        )

    def _inputs(self, spec: JobSpec) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="postdoc-schedule-") as folder:
            work, archive = Path(folder, "work"), Path(folder, names.INPUTS)
            intake.copy_in(spec.files, work)
            package.pack(spec, work, archive, frozenset(spec.mounts))
            code, digest = code_archive()
            path, code_path = f"scheduled/{spec.job_id}/{names.INPUTS}", f"code/{digest[:16]}.tar"
            revision = self._jobs.hub.commit(f"Inputs of {spec.job_id}", {path: archive, code_path: code})
            return {"inputs": [path, revision, sha256_of(archive)], "code": [revision, digest, code_path]}

    def all(self) -> list[Scheduled]:
        return [self._read(found) for found in self._jobs.hub.scheduled(_KIND)]

    def remove(self, handle: str) -> None:
        """Raises: UserError when there is none of ours with this id."""
        if handle not in {found.id for found in self._jobs.hub.scheduled(_KIND)}:
            raise UserError(f"No evaluation {handle} is scheduled; `postdoc reevaluate --list` shows those that are.")
        self._jobs.hub.unschedule(handle)

    def _read(self, found: Any) -> Scheduled:
        try:
            config = json.loads(found.job_spec.command[-1])
        except (ValueError, TypeError, IndexError):
            config = {}
        last = found.status.last_job
        result, problem = self._result(config, last.id) if last is not None else (None, "")
        last_at = last.at if last is not None else None
        about = config.get("about", {"model": "?", "benchmark": "?", "split": "?"})
        return Scheduled(found.id, about, found.schedule, found.status.next_job_run_at, last_at, result, problem)

    def _result(self, config: Mapping[str, Any], job: str) -> tuple[dict[str, Any] | None, str]:
        """What that execution left, by its own signed word, and else why there is nothing."""
        folder = f"{config.get('folder')}/{job}"
        signer = Signer(self._jobs.machine.runs_token, f"{config.get('signed_as')}/{job}")
        with tempfile.TemporaryDirectory(prefix="postdoc-schedule-") as place:
            words, outputs = Path(place, LAST_WORDS), Path(place, names.OUTPUTS)
            if not self._jobs.hub.fetch(f"{folder}/{LAST_WORDS}", words):
                return None, "it has not ended, or left no word"
            marks = [mark for line in words.read_text(encoding="utf-8").splitlines() if (mark := signer.read(line))]
            said = {mark.kind: mark.data for mark in marks}
            state = said.get(STATUS, {}).get("state")
            if state != "succeeded" or NOTE not in said:
                evidence = "; ".join(said.get(STATUS, {}).get("evidence", ())) or "it left no word of its own"
                return None, f"{state or 'unknown'}: {evidence}"
            note = said[NOTE]
            if not self._jobs.hub.fetch(f"{folder}/{names.OUTPUTS}", outputs, note["revision"]):
                return None, "its outputs are gone"
            if sha256_of(outputs) != note["sha256"]:
                return None, "its outputs are not what it left"
            return _evaluation(outputs), ""


def _evaluation(archive: Path) -> dict[str, Any] | None:
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            if member.name == "out/evaluation.json" and member.isreg() and member.size <= _MOST_RESULT_BYTES:
                content = tar.extractfile(member)
                found = json.load(content) if content is not None else None
                return found if isinstance(found, dict) else None
    return None


def schedule_name(about: Mapping[str, Any]) -> str:
    """The same for the same evaluation."""
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:12]
    return f"reevaluate-{digest}"
