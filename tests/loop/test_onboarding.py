"""The onboarding pull request: what it brings, that there is one, and that a no is a no."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from bot.conversation.messages.onboarding import OnboardingFacts, new_workflow_address, onboarding_body
from bot.conversation.policy import Policy, parse_policy
from bot.loop.onboarding import FORM_PATH, WORKFLOW_PATH, Offer, Standing
from bot.loop.world import TEMPLATES
from tests.loop.onboarding_place import BOT, Place, open_place
from tests.world import REPOSITORY


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as opened:
        yield opened


async def test_it_adds_policy_form_and_label_and_says_what_that_means(place: Place) -> None:
    answer = await place.offer(offer=Offer(schema_url="https://postdoc.example.org/schema/postdoc.json"))

    assert (answer.standing, answer.opened_now) == (Standing.OFFERED, True)
    [pull] = place.offers()
    assert (pull.issue.user.login, pull.draft, pull.base_ref) == (BOT, False, "main")
    files = {each.path: each.status for each in place.forge.pull_files(pull)}
    assert files == {".github/postdoc.yml": "added", FORM_PATH: "added"}
    policy = place.text(".github/postdoc.yml")
    line = "# yaml-language-server: $schema=https://postdoc.example.org/schema/postdoc.json\n# Postdoc's policy"
    assert policy.startswith(line)
    assert parse_policy(policy).policy == Policy()
    assert place.text(FORM_PATH) == (TEMPLATES / "issue_form" / "goal.yml").read_text()
    assert "postdoc" in place.forge.repository(REPOSITORY).labels
    assert place.commits() == ["Configure Postdoc"]
    body = pull.issue.body or ""
    assert body.startswith(f"<!-- postdoc:{REPOSITORY}/onboarding/{place.installation_id}/0 -->\n")
    for part in (
        f"{place.url}/{REPOSITORY}/issues/new?template=goal.yml",
        f"{place.url}/{REPOSITORY}/new/main?filename=.github/workflows/postdoc.yml&value=",
        "Nothing is granted without asking",
        "closing it is a no",
        "To undo it",
    ):
        assert part in body


async def test_offering_again_changes_nothing(place: Place) -> None:
    first = await place.offer()
    again = await place.offer()
    assert (again.standing, again.pull_request, again.opened_now) == (Standing.OFFERED, first.pull_request, False)
    assert len(place.offers()) == 1

    place.api("PUT", f"/pulls/{first.pull_request}/merge", json={})
    assert (await place.offer()).standing is Standing.CONFIGURED
    # A policy that somebody removes after all is not brought back.
    sha = place.api("GET", "/contents/.github/postdoc.yml")["sha"]
    place.api("DELETE", "/contents/.github/postdoc.yml", params={"message": "No", "sha": sha})
    assert (await place.offer()).standing is Standing.ACCEPTED
    assert len(place.offers()) == 1


async def test_closing_it_is_a_no_until_somebody_asks_or_the_app_is_installed_anew(place: Place) -> None:
    first = (await place.offer()).pull_request
    assert first is not None
    place.close(first)
    assert (await place.offer()).standing is Standing.DECLINED

    asked = await place.offer(asked_by=501)
    assert (asked.standing, asked.opened_now) == (Standing.OFFERED, True)
    assert asked.pull_request is not None
    place.close(asked.pull_request)
    assert (await place.offer()).standing is Standing.DECLINED
    again = await place.offer(asked_by=502)
    assert again.opened_now and again.pull_request is not None
    place.close(again.pull_request)
    for comment in (501, 502):  # their deliveries arrive once more
        assert (await place.offer(asked_by=comment)).standing is Standing.DECLINED

    place.reinstall()
    assert (await place.offer()).opened_now
    assert place.commits() == ["Configure Postdoc"]
    assert len(place.offers()) == 4


async def test_key_that_was_edited_away_is_still_a_no(place: Place) -> None:
    number = (await place.offer()).pull_request
    assert number is not None
    place.api("PATCH", f"/pulls/{number}", json={"state": "closed", "body": "nothing to see"})
    assert (await place.offer()).standing is Standing.DECLINED


class Killed(BaseException):
    """The process dies here."""


async def test_death_after_any_write_leaves_one_of_everything(place: Place) -> None:
    died: list[str] = []

    async def die_once(what: str) -> None:
        if what not in died and "access_tokens" not in what:
            died.append(what)
            raise Killed

    for _ in range(10):
        try:
            answer = await place.offer(on_write=die_once)
            break
        except Killed:
            place.commit("notes.md" if len(died) == 2 else f"notes-{len(died)}.md", "the default branch moves on\n")
    assert answer.standing is Standing.OFFERED
    root = f"/repos/{REPOSITORY}"
    assert died == [
        f"POST {root}/labels", f"POST {root}/git/refs", f"PATCH {root}/git/refs/heads/postdoc/configure",
        "POST /graphql", f"POST {root}/pulls",
    ]  # fmt: skip
    assert len(place.offers()) == 1
    assert place.commits() == ["Configure Postdoc"]


async def test_two_processes_at_once_open_one(place: Place) -> None:
    answers = await asyncio.gather(*(place.offer() for _ in range(3)))
    assert {answer.standing for answer in answers} == {Standing.OFFERED}
    assert len({answer.pull_request for answer in answers}) == len(place.offers()) == 1
    assert place.commits() == ["Configure Postdoc"]


async def test_branch_of_that_name_with_a_persons_commits_is_left_alone(place: Place) -> None:
    head = place.forge.repository(REPOSITORY).git.branch("main")
    place.api("POST", "/git/refs", json={"ref": "refs/heads/postdoc/configure", "sha": head})
    mine = place.commit("mine.md", "mine\n", branch="postdoc/configure")
    answer = await place.offer()
    assert (answer.standing, "delete it" in answer.why) == (Standing.BLOCKED, True)
    assert place.offers() == []
    assert place.forge.repository(REPOSITORY).git.branch("postdoc/configure") == mine


async def test_form_and_template_settings_that_are_there_are_left_alone(place: Place) -> None:
    place.commit(".github/ISSUE_TEMPLATE/goal.yaml", "name: ours\n")
    place.commit(".github/ISSUE_TEMPLATE/config.yml", "blank_issues_enabled: false\n")
    await place.offer()
    [pull] = place.offers()
    assert [each.path for each in place.forge.pull_files(pull)] == [".github/postdoc.yml"]
    assert "default issue templates" not in (pull.issue.body or "")


async def test_another_label_is_in_the_form_and_in_the_policy(place: Place) -> None:
    label = 'train: "now"'
    await place.offer(offer=Offer(label=label))
    assert label in place.forge.repository(REPOSITORY).labels
    assert yaml.safe_load(place.text(FORM_PATH))["labels"] == [label]
    policy = parse_policy(place.text(".github/postdoc.yml")).policy
    assert policy is not None and policy.labels.goal == label
    assert "yaml-language-server" not in place.text(".github/postdoc.yml")


async def test_configured_forked_archived_and_empty_repositories_are_never_asked(place: Place) -> None:
    forge = place.forge
    forge.add_repository("acme", "configured", {".github/postdoc.yml": "month: {usd: 5}\n"})
    forge.add_repository("acme", "archived", {"README.md": "# a\n"}).archived = True
    forge.add_repository("acme", "empty")
    fork = forge.fork(REPOSITORY, "bob").full_name
    for name in ("acme/configured", "acme/archived", "acme/empty"):
        forge.install_app(place.registration.app_id, name)
    for name, standing in (
        ("acme/configured", Standing.CONFIGURED), ("acme/archived", Standing.UNFIT), ("acme/empty", Standing.UNFIT),
    ):  # fmt: skip
        assert (await place.offer(name)).standing is standing
        assert place.offers(name) == []
    place.installation_id = forge.install_app(place.registration.app_id, fork)
    assert (await place.offer(fork)).standing is Standing.UNFIT


def facts(**changes: object) -> OnboardingFacts:
    values: dict[str, object] = {
        "full_name": "acme/speller", "page": "https://github.com/acme/speller", "branch": "main", "label": "postdoc",
        "files": (".github/postdoc.yml", FORM_PATH), "workflow": Offer.workflow(), "workflow_path": WORKFLOW_PATH,
        "first_form": True, "private": False, "bot": "postdoc",
    }  # fmt: skip
    return OnboardingFacts(**(values | changes))  # type: ignore[arg-type]


def test_workflow_link_fills_in_the_file_and_stays_short_enough() -> None:
    address = new_workflow_address(
        facts(branch="release/1 & 2", page="https://github.com/" + "o" * 39 + "/" + "r" * 100)
    )
    assert address is not None and len(address) < 8_000
    parts = urlsplit(address)
    assert parts.path.endswith("/new/release/1%20%26%202")
    query = parse_qs(parts.query)
    assert query["filename"] == [WORKFLOW_PATH]
    assert query["value"][0].strip() == Offer.workflow().strip()

    assert new_workflow_address(facts(workflow="x" * 8_000)) is None
    assert "Without a server" not in onboarding_body(facts(workflow="x" * 8_000), "k")


def test_words_follow_what_the_repository_is() -> None:
    assert "This repository is public" in onboarding_body(facts(), "k")
    assert "This repository is public" not in onboarding_body(facts(private=True), "k")
    assert f"leave `{FORM_PATH}` out" in onboarding_body(facts(), "k")
    body = onboarding_body(facts(label="@everybody", branch="@all"), "k")
    assert "`@everybody`" in body
    assert "@" not in re.sub(r"`[^`]*`", "", body)


def test_workflow_asks_for_little_and_pins_what_it_uses() -> None:
    workflow = yaml.safe_load(Offer.workflow())
    assert workflow["permissions"] == {"contents": "read"}
    assert list(workflow[True]) == ["workflow_dispatch"]  # YAML 1.1 reads the key `on` as true
    [job] = workflow["jobs"].values()
    assert "self-hosted" in job["runs-on"] and "permissions" not in job
    for step in job["steps"]:
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            _, _, revision = step["uses"].partition("@")
            assert len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    assert job["steps"][0]["with"] == {"persist-credentials": False}
