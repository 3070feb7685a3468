"""The check `postdoc / policy`: mistakes on their lines, a change in sentences, and nothing obeyed from a branch."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.conversation import events as hooks
from bot.conversation.policy import Policy, parse_policy, policy_schema
from bot.errors import TransientError
from bot.practice.commits import commit_files
from bot.practice.model import CheckRun
from bot.server.policy_check import PolicyChecks
from tests.loop.onboarding_place import Place, open_place
from tests.server.onboarding_world import onboarding_world, settled
from tests.world import POLICY, REPOSITORY

PERSON = hooks.Person(1, "bob", "User")
ZERO = "0" * 40


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path, **{".github/postdoc.yml": POLICY}) as opened:
        yield opened


def where(place: Place) -> hooks.Where:
    owner, _, name = REPOSITORY.partition("/")
    return hooks.Where(owner, name, 1, place.installation_id, "d", "main")


async def noted(place: Place, *events: hooks.Occurrence, server: Policy | None = None, times: int = 1) -> None:
    async with place.app() as app:
        checks = PolicyChecks(app, server_policy=server, label="postdoc")
        for _ in range(times):
            for event in events:
                await checks.note(event)


def pull_request(place: Place, number: int, **changes: Any) -> hooks.PullRequestOpened:
    pull = place.forge.repository(REPOSITORY).issues[number].pull
    assert pull is not None
    foreign = pull.head_repository is not pull.repository
    text = hooks.PullText(
        number=number, author=PERSON, head_ref=pull.head_ref, head_sha=pull.head_sha, from_fork=foreign
    )
    values: dict[str, Any] = {"where": where(place), "sender": PERSON, "pull": text}
    return hooks.PullRequestOpened(**(values | changes))


def proposed(place: Place, text: str | None, path: str = ".github/postdoc.yml", branch: str = "change") -> int:
    """A pull request of bob's that writes `text` to the policy, or removes it; returns its number."""
    head = place.forge.repository(REPOSITORY).git.branch("main")
    place.api("POST", "/git/refs", json={"ref": f"refs/heads/{branch}", "sha": head}, login="bob")
    sha = None
    if path == ".github/postdoc.yml":
        sha = place.api("GET", f"/contents/{path}?ref={branch}")["sha"]
    if text is None:
        place.api("DELETE", f"/contents/{path}", params={"message": "x", "sha": sha, "branch": branch}, login="bob")
    else:
        content = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
        payload = {"message": "Edit", "content": content, "branch": branch} | ({"sha": sha} if sha else {})
        place.api("PUT", f"/contents/{path}", json=payload, login="bob")
    opened = place.api("POST", "/pulls", json={"head": branch, "base": "main", "title": branch}, login="bob")
    return int(opened["number"])


def checks_of(place: Place) -> list[CheckRun]:
    return [run for run in place.forge.repository(REPOSITORY).check_runs if run.name == "postdoc / policy"]


async def test_every_mistake_is_an_annotation_on_its_line(place: Place) -> None:
    number = proposed(place, "budget:\n  usd: lots\nconsent:\n  auto_approve:\n    runs: -1\nbudgett: 3\n")
    await noted(place, pull_request(place, number))
    [check] = checks_of(place)
    assert (check.status, check.conclusion, check.title) == ("completed", "failure", "3 mistakes in the policy")
    assert [(a.path, a.start_line, a.start_column, a.annotation_level) for a in check.annotations] == [
        (".github/postdoc.yml", 2, 3, "failure"),
        (".github/postdoc.yml", 5, 5, "failure"),
        (".github/postdoc.yml", 6, 1, "failure"),
    ]
    assert "write `usd: 20` for example" in check.annotations[0].message
    assert "2:3 `budget.usd`" in (check.summary or "")


async def test_sound_change_is_told_in_sentences(place: Place) -> None:
    text = (
        "budget: {usd: 50}\nmonth: {usd: 10}\npermissions: {train: maintain}\npublish: {private: false}\n"
        "consent:\n  auto_approve: {runs: 8, gpu_hours: 2, usd: 5}\n"
    )
    await noted(place, pull_request(place, proposed(place, text)))
    [check] = checks_of(place)
    assert (check.conclusion, check.annotations) == ("success", [])
    for sentence in (
        "The ceiling of USD for a goal is raised from 20 to 50.",
        "The ceiling of USD in a month for all goals together is lowered from 100 to 10.",
        "**More is granted without asking**, per goal: up to 8 runs, 2 GPU hours and 5 USD instead of "
        "up to 6 runs, 2 GPU hours and 0 USD.",
        "Agreeing to train, and changing what is trained takes the role `maintain` instead of `write`.",
        "**Published models can be seen by everybody.**",
        "Nothing is obeyed from a pull request",
    ):
        assert sentence in (check.summary or "")


async def test_what_this_server_does_not_allow_is_noted_on_its_line(place: Place) -> None:
    server = parse_policy("budget: {usd: 10}\nconsent: {auto_approve: {runs: 2}}\n").policy
    text = "budget:\n  usd: 15\nconsent:\n  auto_approve: {runs: 8}\n"
    await noted(place, pull_request(place, proposed(place, text)), server=server)
    [check] = checks_of(place)
    assert check.conclusion == "success"
    assert [(a.start_line, a.annotation_level, a.message) for a in check.annotations] == [
        (2, "notice", "This server's own policy allows less: `budget.usd` 15 → 10."),
        (4, "notice", "This server's own policy allows less: `consent.auto_approve.runs` 8 → 2."),
    ]


async def test_fork_is_read_and_its_commit_checked(place: Place) -> None:
    fork = place.forge.fork(REPOSITORY, "mallory")
    git = fork.git
    head = git.branch("main")
    assert head is not None
    commit = commit_files(
        place.forge, place.forge.actor("mallory"), fork, "main", head, {".github/postdoc.yml": b"month: {usd: x}\n"},
        "Mine", None, None,
    )  # fmt: skip
    payload = {"head": "mallory:main", "base": "main", "title": "From a fork"}
    number = place.api("POST", "/pulls", json=payload, login="mallory")["number"]
    await noted(place, pull_request(place, number))
    [check] = checks_of(place)
    assert (check.conclusion, check.suite.head_sha) == ("failure", commit.oid)


async def test_same_event_again_and_two_processes_make_one_check(place: Place) -> None:
    event = pull_request(place, proposed(place, "month: {usd: 1}\n"))
    await noted(place, event, times=3)
    await noted(place, event)
    assert len(checks_of(place)) == 1
    again = hooks.CheckRunRerequested(
        where=where(place), sender=PERSON, check_run_id=checks_of(place)[0].id, name="postdoc / policy",
        head_sha=event.pull.head_sha, external_id="",
    )  # fmt: skip
    await noted(place, again, times=2)
    assert [check.conclusion for check in checks_of(place)] == ["success", "success"]


async def test_pull_request_about_something_else_and_the_bots_own_get_none(place: Place) -> None:
    await noted(place, pull_request(place, proposed(place, "notes\n", path="notes.md")))
    bot = hooks.Person(2, "postdoc[bot]", "Bot")
    event = pull_request(place, proposed(place, "month: {usd: 1}\n", branch="postdoc/7-last"), sender=bot)
    await noted(place, event)
    assert checks_of(place) == []


async def test_removed_policy_means_the_defaults(place: Place) -> None:
    await noted(place, pull_request(place, proposed(place, None)))
    [check] = checks_of(place)
    assert (check.conclusion, check.title) == ("success", "The policy is removed: the defaults hold")
    assert "Less is granted without asking, per goal: nothing instead of up to 6 runs" in (check.summary or "")


def push(place: Place, before: str, after: str, branch: str = "main") -> hooks.Push:
    return hooks.Push(
        where=where(place), sender=PERSON, ref=f"refs/heads/{branch}", before=before, after=after,
        created=before == ZERO, deleted=after == ZERO, forced=False,
    )  # fmt: skip


async def test_push_to_the_default_branch_is_checked_when_it_touches_the_policy(place: Place) -> None:
    git = place.forge.repository(REPOSITORY).git
    first = git.branch("main") or ""
    other = place.commit("notes.md", "notes\n")
    await noted(place, push(place, first, other), push(place, ZERO, other, branch="feature"), push(place, other, ZERO))
    assert checks_of(place) == []
    assert "postdoc" not in place.forge.repository(REPOSITORY).labels

    sha = place.api("GET", "/contents/.github/postdoc.yml")["sha"]
    place.api("DELETE", "/contents/.github/postdoc.yml", params={"message": "x", "sha": sha})
    gone = git.branch("main") or ""
    changed = place.commit(".github/postdoc.yml", "month: {usd: 7}\n")
    await noted(place, push(place, other, gone), push(place, gone, changed))
    assert [check.conclusion for check in checks_of(place)] == ["success", "success"]
    assert "postdoc" in place.forge.repository(REPOSITORY).labels


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\nc: [*b]\n", "Anchors and aliases"),
        ("x: 1\n" * 250_000, "at most 65,536 are read"),
        ("budget: {usd: 1}\nbudget: {usd: 2}\n", "`budget` is set twice"),
        ("budget:\n\tusd: 3\n", "not YAML"),
        ("\ufeffbudget: {usd: x}\n", "`budget.usd` should be"),
        ("budget: {usd: \udcff}\n", "not UTF-8"),
        ("a: " + "[" * 2_000 + "\n", "Nested deeper"),
        ("".join(f"k{n}: 1\n" for n in range(300)), "There is no setting"),
    ],
)
async def test_hostile_file_is_one_clear_failure(place: Place, text: str, part: str) -> None:
    await noted(place, pull_request(place, proposed(place, text)))
    [check] = checks_of(place)
    assert check.conclusion == "failure"
    assert 1 <= len(check.annotations) <= 50
    assert part in check.annotations[0].message
    assert len(check.summary or "") <= 65_535


async def test_outage_is_said_so_that_the_delivery_waits(place: Place) -> None:
    event = pull_request(place, proposed(place, "month: {usd: 1}\n"))
    place.forge.faults.server_error(matches=lambda method, path: path.endswith("/check-runs") and method == "POST")
    with pytest.raises(TransientError):
        await noted(place, event)
    await noted(place, event)
    assert len(checks_of(place)) == 1


async def test_missing_permission_is_logged_and_the_delivery_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    event = pull_request(place, proposed(place, "month: {usd: 1}\n"))
    place.forge.installations[place.installation_id].permissions.pop("checks")
    await noted(place, event)
    assert "the policy of acme/speller could not be checked: GitHub answered 403" in caplog.text


def test_running_server_checks_a_pull_request_and_bounds_what_is_merged(tmp_path: Path) -> None:
    server = tmp_path / "server.yml"
    server.write_text("budget: {runs: 3}\nconsent: {auto_approve: {runs: 0}}\n")
    with onboarding_world(tmp_path, policy=POLICY, onboarding="false", policy_file=str(server)) as world:
        world.start()
        assert world.wait_ready()
        world.commit(".github/postdoc.yml", POLICY + "budget: {runs: 9}\n")
        sha = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/main")["object"]["sha"]
        checks = f"/repos/{REPOSITORY}/commits/{sha}/check-runs"
        world.until(lambda: world.api("ada", "GET", checks)["total_count"], "the check of the push")
        [check] = world.api("ada", "GET", checks)["check_runs"]
        assert (check["name"], check["conclusion"]) == ("postdoc / policy", "success")
        assert "`budget.runs` 9 → 3" in check["output"]["summary"]
        settled(world)
        issue = world.open_goal()
        world.until(lambda: world.bot_comments(issue), "the contract")
        contract = world.bot_comments(issue)[0]
        assert "This server allows less than the repository's policy: `budget.runs` 9 → 3; " in contract
        assert "Nothing is granted without asking" in contract
        served = httpx.get(f"{world.bot_url}/schema/postdoc.json", trust_env=False)
        assert (served.json(), served.headers["access-control-allow-origin"]) == (policy_schema(), "*")
