"""The part of the Hugging Face Hub that runs jobs. A container is a process of this machine with the job's environment
and nothing of ours, in a folder that is gone when it has ended; everything else is as the real client sees it.

Paths and bodies as `huggingface_hub` 2.4 sends them (https://huggingface.co/docs/huggingface_hub/guides/jobs).
Not there: metrics, ports, SSH, volumes, Spaces as images.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

from tests.fakes.hub_models import Answer

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "ghcr.io/acme/train@sha256:" + "a" * 64
TERMINAL = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
HARDWARE: list[dict[str, Any]] = [
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "ephemeralStorage": "20 GB",
     "accelerator": None, "unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute"},
    {"name": "a10g-large", "prettyName": "Nvidia A10G - large", "cpu": "12 vCPU", "ram": "46 GB",
     "ephemeralStorage": "500 GB", "unitCostMicroUSD": 25000, "unitCostUSD": 0.025, "unitLabel": "minute",
     "accelerator": {"type": "gpu", "model": "A10G", "quantity": "1", "vram": "24 GB", "manufacturer": "Nvidia"}},
    {"name": "l40sx4", "prettyName": "4x Nvidia L40S", "cpu": "48 vCPU", "ram": "382 GB", "ephemeralStorage": "3 TB",
     "unitCostMicroUSD": 138333, "unitCostUSD": 0.138333, "unitLabel": "minute",
     "accelerator": {"type": "gpu", "model": "L40S", "quantity": "4", "vram": "192 GB", "manufacturer": "Nvidia"}},
]  # fmt: skip
_SCHEDULE = re.compile(r"@(annually|yearly|monthly|weekly|daily|hourly)|(\S+ ){4}\S+")


def now() -> str:
    return stamp(time.time())


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass
class FakeJob:
    id: str
    namespace: str
    spec: dict[str, Any]
    initiator: dict[str, str]
    stage: str = "SCHEDULING"
    message: str | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    log: list[tuple[str, str]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def say(self, line: str) -> None:
        with self.changed:
            self.log.append((now(), line))
            self.changed.notify_all()

    def become(self, stage: str, message: str | None = None) -> None:
        with self.changed:
            if self.stage not in TERMINAL:
                self.stage, self.message = stage, message
                if stage == "RUNNING":
                    self.started = time.time()
                elif stage in TERMINAL:
                    self.finished = time.time()
            self.changed.notify_all()

    def as_json(self) -> dict[str, Any]:
        end = self.finished or time.time()
        stamps = {"startedAt": self.started, "finishedAt": self.finished}
        known = {name: stamp(at) for name, at in stamps.items() if at}
        running = int(end - self.started) if self.started else None
        return {
            "id": self.id, "createdAt": stamp(self.created), **known,
            "owner": {"id": "5e9ecfc0", "name": self.namespace, "type": "org"}, "initiator": self.initiator,
            "status": {"stage": self.stage, "message": self.message},
            "durations": {"schedulingSecs": 0, "runningSecs": running, "totalSecs": int(end - self.created)},
            **{key: self.spec.get(key) for key in ("dockerImage", "command", "arguments", "environment", "flavor")},
            "secrets": dict.fromkeys(self.spec.get("secrets", {}), ""), "labels": self.spec.get("labels", {}),
        }  # fmt: skip


@dataclass
class Streamed:
    """A server-sent stream, line by line, for as long as `lines` gives some."""

    lines: Callable[[Callable[[str], None]], None]


class FakeJobs:
    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.scheduled: dict[str, dict[str, Any]] = {}
        self.starters: dict[str, set[str]] = {"hf_server": {"acme"}}
        """Token -> namespaces whose jobs it manages."""
        self.poor: set[str] = set()
        """Namespaces without credit."""
        self.images = {IMAGE: str(Path(sys.executable).parent)}
        """Image -> folder of its programs."""
        self.image_environment: dict[str, str] = {}
        self.prices = [dict(each) for each in HARDWARE]
        self.page_size = 50
        self.capacity = threading.Event()
        """Set while machines come at once; cleared, jobs wait."""
        self.capacity.set()
        self.break_logs_after: list[int] = []
        """Events after which the next connections to a log are broken off, one number each."""
        self.lose_answers = 0
        """So many jobs are started, and who asked for them is not told."""
        self._threads: list[threading.Thread] = []

    # what the server asks

    def answer(self, method: str, target: str, body: bytes, token: str, url: str) -> Answer | Streamed | None:
        """None: not about jobs."""
        parts = urlsplit(target).path.strip("/").split("/")
        query = parse_qs(urlsplit(target).query)
        if parts[:2] == ["api", "jobs"] and parts[2:] == ["hardware"]:
            return Answer(200, self.prices)
        if len(parts) < 3 or parts[:2] not in (["api", "jobs"], ["api", "scheduled-jobs"]):
            return None
        namespace, rest = parts[2], parts[3:]
        if not token or token not in self.starters:
            return Answer(401, {"error": "Invalid username or password."})
        if namespace not in self.starters[token]:
            return Answer(403, {"error": "You don't have permission to manage jobs in this namespace"})
        data = json.loads(body) if body else {}
        if parts[1] == "scheduled-jobs":
            return self._scheduled(method, namespace, rest, query, data)
        if not rest:
            return self._create(namespace, data) if method == "POST" else self._list(namespace, query, url)
        job = self.jobs.get(rest[0])
        if job is None or job.namespace != namespace:
            return Answer(404, {"error": "Job not found"})
        return self._one(method, job, rest[1:], query)

    def _create(self, namespace: str, spec: dict[str, Any]) -> Answer:
        if namespace in self.poor:
            said = "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs."
            return Answer(402, {"error": said})
        if spec.get("flavor") not in {each["name"] for each in self.prices}:
            return Answer(400, {"error": f"Invalid flavor {spec.get('flavor')!r}"})
        job = self.start(namespace, spec, {"type": "user", "id": "1", "name": "server"})
        if self.lose_answers > 0:
            self.lose_answers -= 1
            return Answer(502, {"error": "Bad Gateway"})
        return Answer(200, job.as_json())

    def _list(self, namespace: str, query: dict[str, list[str]], url: str) -> Answer:
        labels = [each.partition("=")[::2] for each in query.get("label", [])]
        found = [
            job for job in sorted(self.jobs.values(), key=lambda job: -job.created)
            if job.namespace == namespace
            and (not query.get("stage") or job.stage in query["stage"])
            and all(job.spec.get("labels", {}).get(key) == value for key, value in labels)
        ]  # fmt: skip
        start = int(query.get("cursor", ["0"])[0])
        page, more = found[start : start + self.page_size], len(found) > start + self.page_size
        following = urlencode({**query, "cursor": start + self.page_size}, doseq=True)
        headers = {"Link": f'<{url}/api/jobs/{namespace}?{following}>; rel="next"'} if more else {}
        return Answer(200, [job.as_json() for job in page], headers)

    def _one(self, method: str, job: FakeJob, rest: list[str], query: dict[str, list[str]]) -> Answer | Streamed:
        match method, rest:
            case "GET", []:
                return Answer(200, job.as_json())
            case "GET", ["logs"]:
                tail = int(query["tail"][0]) if "tail" in query else None
                return Streamed(lambda send: self._log(job, tail, send))
            case "POST", ["cancel"]:
                job.become("CANCELED")
                self._end(job)
                return Answer(200, job.as_json())
        return Answer(404, {"error": "Not found"})

    def _log(self, job: FakeJob, tail: int | None, send: Callable[[str], None]) -> None:
        limit = self.break_logs_after.pop(0) if self.break_logs_after else None
        at = max(0, len(job.log) - tail) if tail else 0
        sent = 0
        while True:
            with job.changed:
                while at >= len(job.log) and job.stage not in TERMINAL:
                    if not job.changed.wait(5):
                        send(": keep-alive\n\n")
                events, at = job.log[at:], len(job.log)
                over = job.stage in TERMINAL
            for at_time, line in events:
                if limit is not None and sent >= limit:
                    raise ConnectionResetError
                send(f"data: {json.dumps({'timestamp': at_time, 'data': line})}\n\n")
                sent += 1
            if over and at == len(job.log):
                return

    def _scheduled(
        self, method: str, namespace: str, rest: list[str], query: dict[str, list[str]], data: dict[str, Any]
    ) -> Answer:
        if not rest and method == "POST":
            if not _SCHEDULE.fullmatch(data["schedule"]):
                return Answer(400, {"error": f"Invalid cron expression {data['schedule']!r}"})
            known = self.scheduled[uuid4().hex[:24]] = data | {"namespace": namespace, "createdAt": now(), "last": None}
            return Answer(200, self._scheduled_json(known))
        if not rest:
            label = query.get("label", [""])[0].split("=", 1)
            return Answer(200, [
                self._scheduled_json(each) for each in self.scheduled.values()
                if each["namespace"] == namespace
                and (len(label) < 2 or each["jobSpec"].get("labels", {}).get(label[0]) == label[1])
            ])  # fmt: skip
        found = self.scheduled.get(rest[0])
        if found is None or found["namespace"] != namespace:
            return Answer(404, {"error": "Scheduled job not found"})
        if method == "DELETE":
            del self.scheduled[rest[0]]
            return Answer(200)
        if method == "POST" and rest[1:] == ["run"]:
            job = self.start(namespace, found["jobSpec"], {"type": "scheduled-job", "id": rest[0]})
            found["last"] = {"id": job.id, "at": now()}
            return Answer(200, job.as_json())
        return Answer(200, self._scheduled_json(found))

    def _scheduled_json(self, found: dict[str, Any]) -> dict[str, Any]:
        handle = next(handle for handle, each in self.scheduled.items() if each is found)
        spec = {**found["jobSpec"], "timeout": found["jobSpec"].get("timeoutSeconds")}
        spec["secrets"] = dict.fromkeys(spec.get("secrets", {}), "")
        return {
            "id": handle, "createdAt": found["createdAt"], "jobSpec": spec, "schedule": found["schedule"],
            "suspend": found.get("suspend", False), "concurrency": found.get("concurrency", False),
            "status": {"lastJob": found["last"], "nextJobRunAt": "2030-01-07T06:00:00.000Z"},
            "owner": {"id": "5e9ecfc0", "name": found["namespace"], "type": "org"},
        }  # fmt: skip

    # containers

    def start(self, namespace: str, spec: dict[str, Any], initiator: dict[str, str]) -> FakeJob:
        job = FakeJob(uuid4().hex[:24], namespace, spec, initiator)
        self.jobs[job.id] = job
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def _run(self, job: FakeJob) -> None:
        while not self.capacity.wait(0.05):
            if job.stage in TERMINAL:
                return
        programs = self.images.get(job.spec.get("dockerImage", ""))
        if programs is None:
            job.become("ERROR", "Failed to pull image")
            return
        folder = tempfile.mkdtemp(prefix="fake-container-")
        try:
            Path(folder).chmod(0o777)
            self._execute(job, programs, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _execute(self, job: FakeJob, programs: str, folder: str) -> None:
        environment = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8",
            "JOB_ID": job.id, "ACCELERATOR": "none", "CPU_CORES": "2", "MEMORY": "16Gi", **self.image_environment,
            **job.spec.get("environment", {}), **job.spec.get("secrets", {}),
        }  # fmt: skip
        with job.changed:
            if job.stage in TERMINAL:
                return
            job.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.container"], cwd=ROOT, env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        assert job.process.stdin is not None
        assert job.process.stdout is not None
        command = {"command": job.spec["command"], "environment": environment, "folder": folder}
        job.become("RUNNING")
        job.say(f"===== Job started at {now()} =====")
        with contextlib.suppress(BrokenPipeError):
            job.process.stdin.write(json.dumps(command).encode())
            job.process.stdin.close()
        late = threading.Timer(job.spec.get("timeoutSeconds", 1800), self._time_out, (job,))
        late.start()
        for line in job.process.stdout:
            job.say(line.decode("utf-8", "replace").rstrip("\n"))
        code = job.process.wait()
        job.process.stdout.close()
        late.cancel()
        if code == 0:
            job.become("COMPLETED")
        else:
            job.become("ERROR", f"Job failed with exit code: {code}. Reason: Error")

    def _time_out(self, job: FakeJob) -> None:
        job.become("ERROR", "Job timeout")
        self._end(job)

    def _end(self, job: FakeJob) -> None:
        if job.process is not None and job.process.poll() is None:
            job.process.send_signal(signal.SIGTERM)

    def vanish(self, job: FakeJob) -> None:
        """The machine under it is gone."""
        job.become("ERROR", "Node was terminated")
        self._end(job)

    def labelled(self, key: str, value: str) -> list[FakeJob]:
        return [job for job in self.jobs.values() if job.spec.get("labels", {}).get(key) == value]

    def alive(self) -> list[str]:
        return [job.id for job in self.jobs.values() if job.process is not None and job.process.poll() is None]

    def close(self) -> None:
        self.capacity.set()
        for job in self.jobs.values():
            job.become("CANCELED")
            self._end(job)
        for thread in self._threads:
            thread.join(30)
