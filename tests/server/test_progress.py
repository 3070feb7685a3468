"""Progress that a job reports itself: stored for its own job alone, and shown on its check run."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bot.loop.database import open_database
from bot.loop.reports import MOST_STEPS, Reports
from bot.server.progress import LARGEST_REPORT_BYTES
from bot.server.run_tokens import run_token
from tests.world import GOOD, POLICY, REPOSITORY, SECRET, practice_world

REPORT = {"global_step": 120, "max_steps": 300, "loss": 1.3125}


def test_reported_progress_is_the_running_checks_title(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=POLICY) as world:
        world.runner.script(GOOD | {"train-01": {"curve": "unseen", "hold": True}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_job("train-01")
        job = next(job for job in world.runner.launches() if "train-01" in job)
        url, headers = (
            f"{world.bot_url}/runs/{job}/progress",
            {"Authorization": f"Bearer {run_token(SECRET, job)}"},
        )
        other = {"Authorization": f"Bearer {run_token(SECRET, 'another-job')}"}
        assert httpx.post(url, json=REPORT, headers=other).status_code == 401
        assert httpx.post(url, json=REPORT).status_code == 401
        assert httpx.post(url, json=REPORT, headers=headers).status_code == 202
        assert httpx.post(url, json=REPORT, headers=headers).status_code == 429
        sha = world.first(issue, "run_started")["head_sha"]

        def title() -> str:
            runs = world.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{sha}/check-runs")["check_runs"]
            return next(str(run["output"]["title"]) for run in runs if run["name"] == "postdoc / run 1")

        world.until(lambda: title() == "step 120/300 · loss 1.31", "the reported step on the check run")
        assert world.state(issue) == "training"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"[1]", 422),
        (b'{"global_step": "many"}', 422),
        (b'{"global_step": -1}', 422),
        (b'{"global_step": 1, "loss": "x"}', 422),
        (b"[" * 9_000, 422),
        (b" " * (LARGEST_REPORT_BYTES + 1), 413),
        (b'{"global_step": 3, "loss": NaN, "note": "@everyone"}', 202),
    ],
)
async def test_bad_report_is_one_clear_refusal(tmp_path: Path, body: bytes, status: int) -> None:
    from bot.server.app import create_app
    from tests.server.pages_world import make_bot

    bot = make_bot(tmp_path)
    headers = {"Authorization": f"Bearer {run_token(bot.settings.webhook_secret.get_secret_value(), 'job-1')}"}
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as client:
        answer = await client.post("/runs/job-1/progress", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert ("error" in answer.json()) == (status != 202)
    assert bot.reports.steps("job-1") == ([{"step": 3, "max_steps": None}] if status == 202 else [])


def test_reports_are_thinned_and_a_restarted_job_begins_again(tmp_path: Path) -> None:
    reports = Reports(open_database(f"sqlite:///{tmp_path / 'r.sqlite'}"))
    for step in range(1, 1001):
        reports.add("job-1", {"step": step})
    steps = [row["step"] for row in reports.steps("job-1")]
    assert steps[0] == 1
    assert steps[-1] == 1000
    assert MOST_STEPS / 2 <= len(steps) <= MOST_STEPS
    reports.add("job-1", {"step": 5})
    assert [row["step"] for row in reports.steps("job-1")][-1] == 5
