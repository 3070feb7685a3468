"""Check suites, check runs, annotations and commit statuses as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model import Annotation, CheckRun, CheckSuite, CommitStatus, PullRequest, Repository
from .accounts import app, stamp, stamp_or_none, user
from .pulls import blob_page, pull_minimal
from .repositories import api, page, repository, simple_commit

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]


def pulls_at(stored: Repository, sha: str) -> list[PullRequest]:
    """Open pull requests of this repository whose head is `sha`; branches of forks are not seen, as on GitHub."""
    return [p for p in stored.pulls if p.head_sha == sha and p.issue.state == "open" and p.head_repository is stored]


def check_run(forge: Forge, run: CheckRun) -> Json:
    stored = run.suite.repository
    url = f"{api(forge, stored)}/check-runs/{run.id}"
    html = f"{page(forge, stored)}/runs/{run.id}"
    return {
        "id": run.id,
        "node_id": run.node_id,
        "head_sha": run.suite.head_sha,
        "external_id": run.external_id,
        "name": run.name,
        "url": url,
        "html_url": html,
        "details_url": run.details_url or f"{forge.base_url}/apps/{run.suite.app.slug}",
        "status": run.status,
        "conclusion": run.conclusion,
        "started_at": stamp_or_none(run.started_at),
        "completed_at": stamp_or_none(run.completed_at),
        "output": {
            "title": run.title,
            "summary": run.summary,
            "text": run.text,
            "annotations_count": len(run.annotations),
            "annotations_url": f"{url}/annotations",
        },
        "check_suite": {"id": run.suite.id},
        "app": app(forge, run.suite.app),
        "pull_requests": [pull_minimal(forge, each) for each in pulls_at(stored, run.suite.head_sha)],
    }


def suite_state(suite: CheckSuite) -> tuple[str, str | None]:
    """(status, conclusion) of a suite: completed once all its runs are, with the worst conclusion."""
    if not suite.runs:
        return "queued", None
    if any(run.status != "completed" for run in suite.runs):
        return "in_progress" if any(run.status == "in_progress" for run in suite.runs) else "queued", None
    worst = ("failure", "timed_out", "cancelled", "action_required", "success", "neutral", "skipped")
    conclusions = {run.conclusion for run in suite.runs}
    return "completed", next((name for name in worst if name in conclusions), "neutral")


def check_suite(forge: Forge, suite: CheckSuite) -> Json:
    stored = suite.repository
    url = f"{api(forge, stored)}/check-suites/{suite.id}"
    status, conclusion = suite_state(suite)
    found = stored.git.commit(suite.head_sha)
    return {
        "id": suite.id,
        "node_id": suite.node_id,
        "head_branch": suite.head_branch,
        "head_sha": suite.head_sha,
        "status": status,
        "conclusion": conclusion,
        "url": url,
        "before": found.parents[0] if found.parents else "0" * 40,
        "after": suite.head_sha,
        "pull_requests": [pull_minimal(forge, each) for each in pulls_at(stored, suite.head_sha)],
        "app": app(forge, suite.app),
        "repository": repository(forge, stored),
        "created_at": stamp(suite.created_at),
        "updated_at": stamp(suite.updated_at),
        "rerequestable": True,
        "runs_rerequestable": True,
        "latest_check_runs_count": len(suite.runs),
        "check_runs_url": f"{url}/check-runs",
        "head_commit": simple_commit(found),
    }


def annotation(forge: Forge, run: CheckRun, stored: Annotation) -> Json:
    return {
        "path": stored.path,
        "blob_href": blob_page(forge, run.suite.repository, run.suite.head_sha, stored.path),
        "start_line": stored.start_line,
        "end_line": stored.end_line,
        "start_column": stored.start_column,
        "end_column": stored.end_column,
        "annotation_level": stored.annotation_level,
        "title": stored.title,
        "message": stored.message,
        "raw_details": stored.raw_details,
    }


def commit_status(forge: Forge, repository_: Repository, stored: CommitStatus) -> Json:
    return {
        "url": f"{api(forge, repository_)}/statuses/{stored.sha}",
        "avatar_url": f"{forge.base_url}/avatars/{stored.creator.id}",
        "id": stored.id,
        "node_id": stored.node_id,
        "state": stored.state,
        "description": stored.description,
        "target_url": stored.target_url,
        "context": stored.context,
        "created_at": stamp(stored.created_at),
        "updated_at": stamp(stored.created_at),
        "creator": user(forge, stored.creator),
    }
