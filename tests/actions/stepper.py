"""Executes one job of a workflow file, and composite actions in it, as GitHub's runner would.

Played: expressions (by GitHub's own evaluator), implied `success()`, outcome and conclusion, the environment files, log
commands and masks, shells, composite actions with their inputs and outputs, cancellation with its signals, the end of
all processes that carry the job's tracking id. Not played, and refused: matrices, needs, services, containers, docker
and node actions but the stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.actions import standins
from tests.actions.file_commands import BLOCKED, FILES, FileCommandError, pairs, path_entries
from tests.actions.judge import Judge
from tests.actions.log_commands import Annotation, Log
from tests.actions.standins import ActionFailed, Call, Refused
from tests.actions.tracked import now_ticks, processes_with

SHELLS = {
    "bash": "bash --noprofile --norc -eo pipefail {0}",
    "sh": "sh -e {0}",
    "python": f"{sys.executable} {{0}}",
    "": "bash -e {0}",
}
"""The last one is a workflow step's without `shell`; https://docs.github.com/en/actions/reference/workflows-and-actions"""
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_STEP_KEYS = {"name", "id", "if", "uses", "with", "run", "shell", "env", "working-directory", "continue-on-error"}
_JOB_KEYS = {"name", "runs-on", "timeout-minutes", "permissions", "env", "steps", "if", "outputs", "concurrency"}
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass
class StepRun:
    name: str
    outcome: str
    conclusion: str
    outputs: dict[str, str]


@dataclass
class JobRun:
    conclusion: str
    steps: list[StepRun]
    log: Log
    summary: str
    artifacts: Path
    outputs: dict[str, str]
    permissions: dict[str, str]
    run_name: str
    concurrency: str
    workspace: Path

    @property
    def annotations(self) -> list[Annotation]:
        return self.log.annotations

    def artifact(self, name: str) -> Path:
        return self.artifacts / name

    def step(self, name: str) -> StepRun:
        [found] = [step for step in self.steps if step.name == name]
        return found


@dataclass
class Scope:
    """What the steps of one job, or of one composite action, share."""

    contexts: dict[str, Any]
    status: str = "success"


@dataclass
class Machine:
    """A self-hosted machine."""

    folder: Path
    judge: Judge
    actions: Mapping[str, Path]
    """`owner/name` -> folder with its action.yml, for what is no stand-in."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of the machine itself, in every step."""
    cancel_when: Callable[[str], bool] | None = None
    """A person presses Cancel once a line of the log says so."""

    def run(
        self,
        workflow: Path,
        event_name: str,
        event: Mapping[str, Any],
        *,
        sha: str,
        repository: str,
        server: str,
        token: str,
        secrets: Mapping[str, str] | None = None,
        actor: str = "octocat",
        run_id: int = 1,
    ) -> JobRun:
        return _Job(
            self, workflow, event_name, event, sha, repository, server, token, secrets or {}, actor, run_id
        ).run()


class _Job:
    def __init__(
        self,
        machine: Machine,
        workflow: Path,
        event_name: str,
        event: Mapping[str, Any],
        sha: str,
        repository: str,
        server: str,
        token: str,
        secrets: Mapping[str, str],
        actor: str,
        run_id: int,
    ) -> None:
        self._machine, self._judge = machine, machine.judge
        self._file: dict[str, Any] = yaml.load(workflow.read_text(encoding="utf-8"), Loader=_Loader)
        if len(self._file["jobs"]) != 1:
            raise Refused("a workflow of one job is played")
        [(self._name, self._spec)] = self._file["jobs"].items()
        if unknown := set(self._spec) - _JOB_KEYS:
            raise Refused(f"jobs.{self._name}: {', '.join(sorted(unknown))} is not played here")
        if event_name not in self._events():
            raise Refused(f"this workflow does not start on {event_name}")
        self._work = machine.folder / f"run-{run_id}"
        self._temp, self._workspace = self._work / "temp", self._work / "workspace"
        for folder in (self._temp, self._workspace, self._work / "artifacts", machine.folder / "tools"):
            folder.mkdir(parents=True, exist_ok=True)
        event_path = self._work / "event.json"
        event_path.write_text(json.dumps(event), encoding="utf-8")
        self._tracking = f"github_{run_id}_{os.getpid()}_{time.monotonic_ns()}"
        self._began = now_ticks()
        self._log = Log(masks={secret for secret in (token, *secrets.values()) if secret})
        self._added_env: dict[str, str] = {}
        self._added_path: list[str] = []
        self._summary: list[str] = []
        self._cancelled = threading.Event()
        self._file_number = 0
        self._steps: list[StepRun] = []
        pull = event.get("pull_request") or {}
        github = {
            "event_name": event_name, "event": dict(event), "sha": sha, "repository": repository, "token": token,
            "repository_owner": repository.partition("/")[0], "run_id": str(run_id), "run_number": "1",
            "run_attempt": "1", "actor": actor, "triggering_actor": actor, "job": self._name,
            "workflow": str(self._file.get("name", workflow.name)), "server_url": server, "api_url": f"{server}/api/v3",
            "graphql_url": f"{server}/api/graphql", "event_path": str(event_path), "workspace": str(self._workspace),
            "head_ref": (pull.get("head") or {}).get("ref", ""), "base_ref": (pull.get("base") or {}).get("ref", ""),
            "ref": "refs/heads/main", "ref_name": "main", "action_path": "", "action_ref": "",
            "workflow_ref": f"{repository}/.github/workflows/{workflow.name}@refs/heads/main",
        }  # fmt: skip
        runner = {"os": "Linux", "arch": "X64", "name": "stepper", "temp": str(self._temp), "debug": "",
                  "tool_cache": str(machine.folder / "tools"), "environment": "self-hosted"}  # fmt: skip
        self._scope = Scope(
            {"github": github, "runner": runner, "env": {}, "job": {"status": "success"}, "steps": {},
             "secrets": {"GITHUB_TOKEN": token, **secrets}, "vars": {}, "inputs": self._inputs(event_name, event)}
        )  # fmt: skip

    def run(self) -> JobRun:
        scope = self._scope
        run_name = self._text(self._file.get("run-name", ""), scope)
        concurrency = self._file.get("concurrency") or {}
        group = self._text(concurrency.get("group", "") if isinstance(concurrency, dict) else concurrency, scope)
        conclusion = "skipped"
        if "if" not in self._spec or self._condition(self._spec["if"], scope):
            self._text(_joined(self._spec["runs-on"]), scope)
            minutes = self._value(self._spec["timeout-minutes"], scope) if "timeout-minutes" in self._spec else 360
            if not isinstance(minutes, int | float) or minutes <= 0:
                raise Refused(f"timeout-minutes is {minutes!r}")
            self._set_env(self._file.get("env"), scope)
            self._set_env(self._spec.get("env"), scope)
            for step in self._spec["steps"]:
                self._step(step, scope, self._steps, "")
            conclusion = scope.status
        self._end_tracked()
        outputs = {name: self._text(value, scope) for name, value in (self._spec.get("outputs") or {}).items()}
        permissions = self._spec.get("permissions", self._file.get("permissions"))
        return JobRun(
            conclusion, self._steps, self._log, "\n".join(self._summary), self._work / "artifacts", outputs,
            dict(permissions or {}), run_name, group, self._workspace,
        )  # fmt: skip

    # the workflow

    def _events(self) -> dict[str, Any]:
        on = self._file["on"]
        return {on: None} if isinstance(on, str) else dict.fromkeys(on) if isinstance(on, list) else on

    def _inputs(self, event_name: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """A dispatch's inputs, checked and completed as GitHub does before it starts anything."""
        if event_name != "workflow_dispatch":
            return {}
        declared = (self._events()["workflow_dispatch"] or {}).get("inputs") or {}
        given = dict(event.get("inputs") or {})
        if unknown := sorted(set(given) - set(declared)):
            raise Refused(f"Unexpected inputs provided: {unknown}")
        found: dict[str, Any] = {}
        for name, spec in declared.items():
            if spec.get("required") and not given.get(name) and "default" not in spec:
                raise Refused(f"Required input '{name}' not provided")
            value = given.get(name, spec.get("default", ""))
            found[name] = (str(value).lower() == "true") if spec.get("type") == "boolean" else str(value)
        return found

    # expressions

    def _contexts(self, scope: Scope) -> dict[str, Any]:
        return scope.contexts

    def _value(self, template: Any, scope: Scope) -> Any:
        """A template with its type where it is one expression, else its text."""
        if not isinstance(template, str):
            return template
        whole = _EXPRESSION.fullmatch(template.strip())
        if whole is not None:
            return self._judge.evaluate(whole[1], self._contexts(scope), status=scope.status).value
        return self._text(template, scope)

    def _text(self, template: Any, scope: Scope) -> str:
        if isinstance(template, bool):
            return str(template).lower()
        text = "" if template is None else str(template)
        return _EXPRESSION.sub(
            lambda match: self._judge.evaluate(match[1], self._contexts(scope), status=scope.status).text, text
        )

    def _condition(self, template: Any, scope: Scope) -> bool:
        """`success()` is implied unless a status function is named."""
        if isinstance(template, bool):
            return template and scope.status == "success"
        whole = _EXPRESSION.fullmatch(str(template).strip())
        expression = whole[1] if whole is not None else str(template)
        found = self._judge.evaluate(expression, self._contexts(scope), status=scope.status)
        if not found.calls and scope.status != "success":
            return False
        return bool(found.value)

    def _set_env(self, declared: Mapping[str, Any] | None, scope: Scope) -> None:
        for name, value in (declared or {}).items():
            scope.contexts["env"][name] = self._text(value, scope)

    # steps

    def _step(self, step: Mapping[str, Any], scope: Scope, done: list[StepRun], above: str) -> None:
        if unknown := set(step) - _STEP_KEYS:
            raise Refused(f"a step's {', '.join(sorted(unknown))} is not played here")
        name = str(step.get("name") or step.get("uses") or str(step.get("run", "")).strip().partition("\n")[0])
        if self._cancelled.is_set():
            scope.status = "cancelled"
        scope.contexts["job"]["status"] = scope.status
        outputs: dict[str, str] = {}
        if not self._condition(step.get("if", True), scope):
            outcome = "skipped"
        else:
            env = scope.contexts["env"] | {
                key: self._text(value, scope) for key, value in (step.get("env") or {}).items()
            }
            self._log.step = f"{above}{name}"
            try:
                if "uses" in step:
                    outcome = self._uses(step, env, scope, outputs, f"{above}{name} / ")
                else:
                    outcome = self._run(step, env, scope, outputs, composite=bool(above))
            except ActionFailed as error:
                self._log.write(f"::error::{error}")
                outcome = "failure"
        if self._cancelled.is_set() and outcome == "failure":
            outcome = "cancelled"
        forgiven = outcome == "failure" and bool(self._value(step.get("continue-on-error", False), scope))
        conclusion = "success" if forgiven else outcome
        if conclusion in ("failure", "cancelled") and scope.status == "success":
            scope.status = conclusion
        if "id" in step:
            told = {"outputs": outputs, "outcome": outcome, "conclusion": conclusion}
            scope.contexts["steps"][step["id"]] = told
        done.append(StepRun(name, outcome, conclusion, outputs))

    def _uses(
        self, step: Mapping[str, Any], env: dict[str, str], scope: Scope, outputs: dict[str, str], above: str
    ) -> str:
        given = {key: self._text(value, scope) for key, value in (step.get("with") or {}).items()}
        self._group(f"Run {step['uses']}", env, given)
        name, _, version = str(step["uses"]).partition("@")
        if name in standins.INPUTS:
            if not _SHA.fullmatch(version):
                raise Refused(f"{step['uses']} is not pinned by a commit")
            call = Call({}, scope.contexts["github"], self._work / "artifacts", self._prepend, self._log.masks)
            outputs |= standins.play(name, given, call)
            return "success"
        if name.startswith("./"):
            return self._composite(self._workspace / name, given, env, scope, outputs, above)
        if name not in self._machine.actions:
            raise Refused(f"{step['uses']} is no action that this machine knows")
        return self._composite(self._machine.actions[name], given, env, scope, outputs, above)

    def _composite(
        self,
        folder: Path,
        given: Mapping[str, str],
        env: dict[str, str],
        scope: Scope,
        outputs: dict[str, str],
        above: str,
    ) -> str:
        action = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
        if action["runs"]["using"] != "composite":
            raise Refused(f"{folder}: only composite actions are played")
        declared = action.get("inputs") or {}
        for unknown in sorted(set(given) - set(declared)):
            self._log.write(f"::warning::Unexpected input(s) '{unknown}', valid inputs are {sorted(declared)}")
        outer = scope.contexts
        github = outer["github"] | {"action_path": str(folder.resolve())}
        inputs = {
            name: given[name] if name in given else self._text(spec.get("default", ""), scope)
            for name, spec in declared.items()
        }
        # A composite action is given no secrets; what it needs comes as an input.
        contexts = {"github": github, "runner": outer["runner"], "env": dict(env), "inputs": inputs, "steps": {},
                    "job": dict(outer["job"])}  # fmt: skip
        inner = Scope(contexts, scope.status if scope.status == "success" else "success")
        done: list[StepRun] = []
        for step in action["runs"]["steps"]:
            if "run" in step and "shell" not in step:
                raise Refused(f"{folder}: a step without `shell`")
            self._step(step, inner, done, above)
        self._steps.extend(done)
        for name, spec in (action.get("outputs") or {}).items():
            outputs[name] = self._text(spec.get("value", ""), inner)
        return inner.status

    def _group(self, title: str, env: Mapping[str, str], given: Mapping[str, str] | None = None) -> None:
        """What GitHub prints above a step: everybody who can read the log sees it."""
        self._log.show(f"##[group]{title}")
        for heading, values in (("with", given or {}), ("env", env)):
            if values:
                self._log.show(f"{heading}:")
                for name, value in values.items():
                    for line in f"  {name}: {value}".split("\n"):
                        self._log.show(line)
        self._log.show("##[endgroup]")

    # processes

    def _run(
        self, step: Mapping[str, Any], env: dict[str, str], scope: Scope, outputs: dict[str, str], *, composite: bool
    ) -> str:
        script = self._text(step["run"], scope)
        shell = SHELLS.get(str(step.get("shell", "")), str(step.get("shell", "")))
        if "{0}" not in shell:
            raise Refused(f"shell: {step.get('shell')} is not known")
        self._file_number += 1
        path = self._temp / f"step-{self._file_number}.sh"
        path.write_text(script, encoding="utf-8")
        files = {name: self._temp / f"{name.lower()}-{self._file_number}" for name in FILES}
        for file in files.values():
            file.touch()
        self._group("Run " + script.strip().partition("\n")[0], env)
        cwd = self._workspace / self._text(step.get("working-directory", "."), scope)
        environment = self._environment(scope) | env | {name: str(file) for name, file in files.items()}
        code = self._process([word.replace("{0}", str(path)) for word in shell.split()], cwd, environment)
        failed = code != 0
        if failed:
            self._log.write(f"::error::Process completed with exit code {code}.")
        # Read even when it failed: what it has said until then holds.
        try:
            outputs |= pairs(files["GITHUB_OUTPUT"])
            added = pairs(files["GITHUB_ENV"])
        except FileCommandError as error:
            self._log.write(f"::error::Unable to process file command successfully: {error}")
            return "failure"
        if blocked := BLOCKED.intersection(added):
            self._log.write(f"::error::Can't store {', '.join(blocked)} output parameter using '$GITHUB_ENV' command.")
            return "failure"
        self._added_env |= added
        scope.contexts["env"] |= added
        for entry in path_entries(files["GITHUB_PATH"]):
            self._prepend(entry)
        self._summary.append(files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8"))
        return "failure" if failed else "success"

    def _environment(self, scope: Scope) -> dict[str, str]:
        github, runner = scope.contexts["github"], scope.contexts["runner"]
        told = {
            f"GITHUB_{name.upper()}": str(value)
            for name, value in github.items()
            if name not in ("token", "event") and value != ""
        }
        path = os.pathsep.join([*reversed(self._added_path), os.environ["PATH"]])
        return (
            {"HOME": os.environ.get("HOME", "/root"), "PATH": path, "LANG": "C.UTF-8"}
            | self._machine.environment
            | {"CI": "true", "GITHUB_ACTIONS": "true", "RUNNER_OS": runner["os"], "RUNNER_ARCH": runner["arch"]}
            | {"RUNNER_ENVIRONMENT": runner["environment"]}
            | {"RUNNER_NAME": runner["name"], "RUNNER_TEMP": runner["temp"], "RUNNER_TOOL_CACHE": runner["tool_cache"]}
            | {"RUNNER_TRACKING_ID": self._tracking}
            | told
            | self._added_env
        )

    def _process(self, command: list[str], cwd: Path, environment: dict[str, str]) -> int:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        cancelling: threading.Thread | None = None
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            self._log.write(line)
            wanted = self._machine.cancel_when
            if wanted is not None and not self._cancelled.is_set() and wanted(line):
                self._cancelled.set()
                cancelling = threading.Thread(target=_cancel, args=(process,), daemon=True)
                cancelling.start()
        process.stdout.close()
        code = process.wait()
        self._log.end_step()
        if cancelling is not None:
            cancelling.join()
        return code

    def _prepend(self, entry: str) -> None:
        self._added_path.append(entry)

    def _end_tracked(self) -> None:
        """The runner ends every process that still carries the job's tracking id."""
        for pid in processes_with(f"RUNNER_TRACKING_ID={self._tracking}".encode(), self._began):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._temp, ignore_errors=True)


def _cancel(process: subprocess.Popen[bytes]) -> None:
    """The step's own process is asked twice and then ended; its children are not told."""
    for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
        process.send_signal(number)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue
    process.kill()


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: `on:` is a key of text, as GitHub reads it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs_ if tag != "tag:yaml.org,2002:bool"]
    for first, pairs_ in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
