"""Search for issues and pull requests: the qualifiers repo, is, state, label, author and in-text words."""

from __future__ import annotations

import shlex

from ..model import Issue, Repository
from ..permissions import can_see
from ..replies import Reply, invalid
from ..routing import Call, Routes
from ..shapes import conversations as shapes

routes = Routes()


@routes.get("/search/issues")
def search_issues(call: Call) -> Reply:
    query = call.query.get("q", "")
    if not query.strip():
        raise invalid("Search", "q", "missing")
    try:
        words = shlex.split(query)
    except ValueError:
        words = query.split()
    visible = [r for r in call.forge.repositories.values() if can_see(call.actor, r)]
    found = [i for r in visible for i in r.issues.values() if all(_matches(word, r, i) for word in words)]
    found.sort(key=lambda issue: issue.created_at, reverse=True)
    items = [shapes.issue(call.forge, issue) | {"score": 1.0, "body": issue.body or ""} for issue in call.page(found)]
    body = {"total_count": len(found), "incomplete_results": False, "items": items, "search_type": "lexical"}
    return Reply(body=body)


def _matches(word: str, repository: Repository, issue: Issue) -> bool:
    name, colon, value = word.partition(":")
    value = value.lower()
    match name if colon else "":
        case "repo":
            return repository.full_name.lower() == value
        case "is" | "type" if value in ("pr", "pull-request", "issue"):
            return (issue.pull is not None) == (value != "issue")
        case "is" | "state":
            return value == "merged" if issue.pull and issue.pull.merged_at else issue.state == value
        case "label":
            return any(label.name.lower() == value for label in issue.labels)
        case "author":
            return issue.user.login.lower().removesuffix("[bot]") == value.removeprefix("app/")
        case _:
            return word.lower() in f"{issue.title}\n{issue.body or ''}".lower()
