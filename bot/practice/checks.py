"""Check runs: only the App that made one may change it, within GitHub's limits; buttons once it has completed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from .auth import Actor
from .model import Annotation, App, CheckRun, CheckSuite, Repository, Role, User
from .permissions import role_of
from .replies import ApiError, invalid
from .shapes import checks as shapes

if TYPE_CHECKING:
    from .forge import Forge

MAX_TEXT = 65_535
MAX_ANNOTATIONS_PER_REQUEST = 50
MAX_ACTIONS = 3
ACTION_LENGTHS = {"label": 20, "description": 40, "identifier": 20}
MAX_ANNOTATION_MESSAGE_BYTES = 64 * 1024
MAX_ANNOTATION_TITLE = 255
STATUSES = ("queued", "in_progress", "completed", "waiting", "requested", "pending")
CONCLUSIONS = ("action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out")
LEVELS = ("notice", "warning", "failure")


def require_check_app(actor: Actor) -> App:
    """Raises: ApiError 403 for people: check runs are written by Apps only."""
    if actor.token is None or actor.app is None:
        raise ApiError(403, "You must authenticate via a GitHub App.")
    return actor.app


def create(forge: Forge, actor: Actor, repository: Repository, name: str, sha: str, fields: dict[str, Any]) -> CheckRun:
    """`fields` is the request's body. Raises: ApiError 403, 422."""
    app = require_check_app(actor)
    if repository.git.type_of(sha) != "commit":
        raise ApiError(422, f"No commit found for SHA: {sha}")
    _check_fields(fields)
    suite, _ = suite_for(forge, repository, app, sha)
    run = CheckRun(id=forge.next_id("check"), suite=suite, name=name, status="queued", started_at=forge.clock())
    _apply(forge, run, fields)
    suite.runs.append(run)
    suite.updated_at = forge.clock()
    forge.nodes[run.node_id] = run
    emit(forge, actor.account, run, "created")
    if run.status == "completed":
        emit(forge, actor.account, run, "completed")
    return run


def update(forge: Forge, actor: Actor, run: CheckRun, fields: dict[str, Any]) -> None:
    """Raises: ApiError 403 for another App's run, 422."""
    if require_check_app(actor) is not run.suite.app:
        raise ApiError(
            403,
            "Invalid app_id `" + str(run.suite.app.id) + "` - check run can only be modified by the "
            "GitHub App that created it.",
        )
    _check_fields(fields)
    was_completed = run.status == "completed"
    _apply(forge, run, fields)
    run.suite.updated_at = forge.clock()
    if run.status == "completed" and not was_completed:
        emit(forge, actor.account, run, "completed")


def suite_for(
    forge: Forge, repository: Repository, app: App, sha: str, branch: str | None = None
) -> tuple[CheckSuite, bool]:
    """The App's check suite for a commit, and whether it is new: there is one for each commit."""
    for suite in repository.suites:
        if suite.app is app and suite.head_sha == sha:
            return suite, False
    branch = branch or next((pull.head_ref for pull in repository.pulls if pull.head_sha == sha), None)
    now = forge.clock()
    suite = CheckSuite(forge.next_id("check"), repository, app, sha, branch, now, now)
    repository.suites.append(suite)
    forge.nodes[suite.node_id] = suite
    return suite, True


def _check_fields(fields: dict[str, Any]) -> None:
    status, conclusion = fields.get("status"), fields.get("conclusion")
    if status is not None and status not in STATUSES:
        raise invalid("CheckRun", "status", "invalid", value=str(status))
    if conclusion is not None and conclusion not in CONCLUSIONS:
        raise invalid("CheckRun", "conclusion", "invalid", value=str(conclusion))
    if status == "completed" and conclusion is None:
        raise ApiError(422, 'Invalid request.\n\n"conclusion" wasn\'t supplied.')
    output = fields.get("output")
    if output is not None:
        _check_output(output)
    _check_actions(fields.get("actions") or [])


def _check_output(output: Any) -> None:
    if not isinstance(output, dict) or not isinstance(output.get("summary"), str):
        raise ApiError(422, 'Invalid request.\n\n"summary" wasn\'t supplied.')
    for name in ("summary", "text"):
        if len(output.get(name) or "") > MAX_TEXT:
            raise invalid("CheckRun", name, "custom", f"{name} exceeds a maximum of {MAX_TEXT} characters")
    annotations = output.get("annotations") or []
    if len(annotations) > MAX_ANNOTATIONS_PER_REQUEST:
        raise ApiError(
            422,
            f"Invalid request.\n\nNo more than {MAX_ANNOTATIONS_PER_REQUEST} items are allowed; "
            f"{len(annotations)} were supplied.",
        )
    for annotation in annotations:
        _check_annotation(annotation)


def _check_annotation(given: Any) -> None:
    needed = ("path", "start_line", "end_line", "annotation_level", "message")
    missing = next((name for name in needed if not isinstance(given, dict) or name not in given), None)
    if missing:
        raise ApiError(422, f'Invalid request.\n\n"{missing}" wasn\'t supplied.')
    if given["annotation_level"] not in LEVELS:
        raise invalid("CheckAnnotation", "annotation_level", "invalid")
    if len(given["message"].encode()) > MAX_ANNOTATION_MESSAGE_BYTES:
        raise invalid("CheckAnnotation", "message", "custom", "message is too long (maximum is 64 KB)")
    if len(given.get("title") or "") > MAX_ANNOTATION_TITLE:
        raise invalid("CheckAnnotation", "title", "custom", "title is too long (maximum is 255 characters)")
    if given.get("start_column") is not None and given["start_line"] != given["end_line"]:
        raise invalid("CheckAnnotation", "start_column", "custom", "columns need start_line and end_line to be equal")


def _check_actions(actions: Any) -> None:
    if not isinstance(actions, list) or len(actions) > MAX_ACTIONS:
        raise ApiError(422, f"Invalid request.\n\nNo more than {MAX_ACTIONS} items are allowed.")
    for action in actions:
        for name, limit in ACTION_LENGTHS.items():
            value = action.get(name) if isinstance(action, dict) else None
            if not isinstance(value, str):
                raise ApiError(422, f'Invalid request.\n\n"{name}" wasn\'t supplied.')
            if len(value) > limit:
                raise invalid(
                    "CheckRun", f"actions.{name}", "custom", f"{name} exceeds a maximum of {limit} characters"
                )


def _apply(forge: Forge, run: CheckRun, fields: dict[str, Any]) -> None:
    for name in ("name", "external_id", "details_url"):
        if fields.get(name) is not None:
            setattr(run, name, fields[name])
    if fields.get("started_at"):
        run.started_at = _moment(fields["started_at"])
    if fields.get("conclusion"):
        run.status, run.conclusion = "completed", fields["conclusion"]
        run.completed_at = _moment(fields["completed_at"]) if fields.get("completed_at") else forge.clock()
    elif fields.get("status"):
        run.status, run.conclusion, run.completed_at = fields["status"], None, None
    if "actions" in fields:
        run.actions = [dict(action) for action in fields["actions"] or []]
    if fields.get("output") is not None:
        output = fields["output"]
        run.title = output.get("title", run.title)
        run.summary = output["summary"]
        run.text = output.get("text", run.text)
        run.annotations += [_annotation(each) for each in output.get("annotations") or []]


def _annotation(given: dict[str, Any]) -> Annotation:
    return Annotation(
        path=given["path"],
        start_line=given["start_line"],
        end_line=given["end_line"],
        start_column=given.get("start_column"),
        end_column=given.get("end_column"),
        annotation_level=given["annotation_level"],
        title=given.get("title"),
        message=given["message"],
        raw_details=given.get("raw_details"),
    )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, AttributeError):
        raise ApiError(422, f"Invalid request.\n\n{text} is not a valid date-time.") from None


def emit(
    forge: Forge, sender: User, run: CheckRun, action: str, extra: dict[str, Any] | None = None, only: App | None = None
) -> None:
    payload = {"check_run": shapes.check_run(forge, run), **(extra or {})}
    payload["check_run"]["check_suite"] = shapes.check_suite(forge, run.suite)
    forge.emit(run.suite.repository, "check_run", action, sender, lambda: payload, only)


def press_button(forge: Forge, run: CheckRun, identifier: str, user: User) -> None:
    """A person clicks one of the run's buttons: `check_run.requested_action` to its App.

    Raises: ApiError 422 while the run has not completed or has no such button; 403 without write permission.
    """
    if not role_of(run.suite.repository, user).includes(Role.WRITE):
        raise ApiError(403, "Must have push access to this repository.")
    if run.status != "completed":
        raise ApiError(422, "Buttons are shown once the check run has completed.")
    if not any(action["identifier"] == identifier for action in run.actions):
        raise ApiError(422, f"This check run has no button {identifier!r}.")
    emit(forge, user, run, "requested_action", {"requested_action": {"identifier": identifier}}, run.suite.app)


def rerequest(forge: Forge, user: User, run: CheckRun) -> None:
    """A person (or the API) asks for the run again; its App decides what to do."""
    emit(forge, user, run, "rerequested", only=run.suite.app)
