"""Labels of a repository and of an issue."""

from __future__ import annotations

from .. import issues
from ..model import Label, Role
from ..replies import Reply, not_found
from ..routing import Call, Routes
from ..shapes import conversations as shapes
from .issues import READ, WRITE, reachable_issue

routes = Routes()


def _shown(call: Call, labels: list[Label]) -> Reply:
    return Reply(body=[shapes.label(call.forge, call.repository, each) for each in call.page(labels)])


def _label(call: Call) -> Label:
    label = call.repository.labels.get(call.params["name"].lower())
    if label is None:
        raise not_found()
    return label


def _asked(call: Call) -> list[str]:
    given = call.body.get("", call.value("labels", list)) or []
    return [each["name"] if isinstance(each, dict) else str(each) for each in given]


@routes.get("/repos/{owner}/{repo}/labels", needs=READ)
def list_labels(call: Call) -> Reply:
    return _shown(call, list(call.repository.labels.values()))


@routes.post("/repos/{owner}/{repo}/labels", needs=WRITE)
def create_label(call: Call) -> Reply:
    label = issues.create_label(
        call.forge, call.repository, call.required_text("name"), call.text("color"), call.text("description")
    )
    return Reply(201, shapes.label(call.forge, call.repository, label))


@routes.get("/repos/{owner}/{repo}/labels/{name:path}", needs=READ)
def get_label(call: Call) -> Reply:
    return Reply(body=shapes.label(call.forge, call.repository, _label(call)))


@routes.patch("/repos/{owner}/{repo}/labels/{name:path}", needs=WRITE)
def update_label(call: Call) -> Reply:
    label = _label(call)
    del call.repository.labels[label.name.lower()]
    label.name = call.text("new_name", label.name) or label.name
    label.color = call.text("color", label.color) or label.color
    label.description = call.text("description", label.description)
    call.repository.labels[label.name.lower()] = label
    return Reply(body=shapes.label(call.forge, call.repository, label))


@routes.delete("/repos/{owner}/{repo}/labels/{name:path}", needs=WRITE)
def delete_label(call: Call) -> Reply:
    label = _label(call)
    del call.repository.labels[label.name.lower()]
    for issue in call.repository.issues.values():
        issue.labels = [each for each in issue.labels if each is not label]
    return Reply(204)


@routes.get("/repos/{owner}/{repo}/issues/{number}/labels", needs=READ)
def list_issue_labels(call: Call) -> Reply:
    return _shown(call, reachable_issue(call, "read").labels)


@routes.post("/repos/{owner}/{repo}/issues/{number}/labels", needs=WRITE, role=Role.TRIAGE)
def add_issue_labels(call: Call) -> Reply:
    issue = reachable_issue(call, "write", Role.TRIAGE)
    issues.add_labels(call.forge, call.actor, issue, _asked(call))
    return _shown(call, issue.labels)


@routes.put("/repos/{owner}/{repo}/issues/{number}/labels", needs=WRITE, role=Role.TRIAGE)
def set_issue_labels(call: Call) -> Reply:
    issue = reachable_issue(call, "write", Role.TRIAGE)
    issues.set_labels(call.forge, call.actor, issue, _asked(call))
    return _shown(call, issue.labels)


@routes.delete("/repos/{owner}/{repo}/issues/{number}/labels", needs=WRITE, role=Role.TRIAGE)
def remove_issue_labels(call: Call) -> Reply:
    issues.set_labels(call.forge, call.actor, reachable_issue(call, "write", Role.TRIAGE), [])
    return Reply(204)


@routes.delete("/repos/{owner}/{repo}/issues/{number}/labels/{name:path}", needs=WRITE, role=Role.TRIAGE)
def remove_issue_label(call: Call) -> Reply:
    issue = reachable_issue(call, "write", Role.TRIAGE)
    label = call.repository.labels.get(call.params["name"].lower())
    if label is None or label not in issue.labels:
        raise not_found()
    issues.remove_label(call.forge, call.actor, issue, label)
    return _shown(call, issue.labels)
