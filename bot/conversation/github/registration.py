"""What the App has to be registered with: permissions and events, no more and no less.

https://docs.github.com/en/apps/creating-github-apps/registering-a-github-app/choosing-permissions-for-a-github-app
"""

from __future__ import annotations

PERMISSIONS = {
    "contents": "write",
    "issues": "write",
    "pull_requests": "write",
    "checks": "write",
    "actions": "write",
    "metadata": "read",
}
"""The least that does what Postdoc does. `actions` starts and ends the runs whose machines train, where that is the
runner. Not `workflows`: Postdoc never writes a workflow file."""
OPTIONAL = {"administration": "read"}
"""Not asked for. With it, whoever waits for a machine is told which ones are online."""
EVENTS = (
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
