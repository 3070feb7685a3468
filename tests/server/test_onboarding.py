"""The onboarding pull request: what it brings, that there is one, and that a no is a no. Over HTTP, as it would be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from bot.conversation.policy import Policy, parse_policy
from bot.practice.model import Installation
from bot.practice.webhooks import Event
from tests.server.onboarding_world import close, offers, onboarding_world, restart, settled, until_offered
from tests.world import REPOSITORY, ROOT, World, _free_port

TEMPLATES = ROOT / "templates"


def redeliver_everything(world: World) -> None:
    """Every delivery so far once more, under the same id and under a new one."""
    app = world.forge.apps[world.app_id]
    for delivery in reversed(world.forge.webhooks.deliveries(app)):
        for guid in (delivery.guid, None):
            event = Event(delivery.event, delivery.action, delivery.body, guid=guid, redelivery=True)
            world.forge.webhooks.send(app, event)
    settled(world)


def reinstall(world: World) -> Installation:
    """Uninstall the App and install it again: its installation has another number then."""
    forge = world.forge
    with forge.lock:
        old = next(each for each in forge.installations.values() if each.app.id == world.app_id)
        del forge.installations[old.id]
    return forge.installations[forge.install_app(world.app_id, REPOSITORY)]


def labels(world: World) -> set[str]:
    return {label["name"] for label in world.api("ada", "GET", f"/repos/{REPOSITORY}/labels?per_page=100")}


def test_installing_brings_one_pull_request_that_is_inert_until_merged(tmp_path: Path) -> None:
    with onboarding_world(tmp_path, public_url="https://postdoc.example.org") as world:
        world.start()
        offer = until_offered(world)

        assert {"postdoc"} <= labels(world)
        assert not offer["draft"]
        files = world.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{offer['number']}/files")
        assert {each["filename"]: each["status"] for each in files} == {
            ".github/postdoc.yml": "added",
            ".github/ISSUE_TEMPLATE/goal.yml": "added",
        }
        policy = world.file("postdoc/configure", ".github/postdoc.yml")
        assert policy.startswith(
            "# yaml-language-server: $schema=https://postdoc.example.org/schema/postdoc.json\n# Postdoc's policy"
        )
        assert parse_policy(policy).policy == Policy()
        form = world.file("postdoc/configure", ".github/ISSUE_TEMPLATE/goal.yml")
        assert form == (TEMPLATES / "issue_form" / "goal.yml").read_text()
        assert "issues/new?template=goal.yml" in offer["body"]
        assert f"{world.url}/{REPOSITORY}/new/main?filename=.github/workflows/postdoc.yml&value=" in offer["body"]
        assert "Nothing is granted without asking" in offer["body"]
        assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]

        # Inert: a goal opened meanwhile is read by the defaults, not by the proposed file.
        redeliver_everything(world)
        restart(world)
        assert len(offers(world)) == 1

        world.api("ada", "PUT", f"/repos/{REPOSITORY}/pulls/{offer['number']}/merge", json={})
        restart(world)
        assert len(offers(world)) == 1


def test_closing_it_is_a_no_until_the_app_is_installed_anew_or_a_writer_asks(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        world.start()
        first = until_offered(world)["number"]
        close(world, first)
        redeliver_everything(world)
        restart(world)
        assert [each["number"] for each in offers(world)] == [first]

        # Words that command nothing, and a command of somebody who may only read.
        world.comment(first, "What is this?", login="bob")
        world.comment(first, "/postdoc help", login="mallory")
        settled(world)
        assert len(offers(world)) == 1

        world.comment(first, "Let us try it.\n\n/postdoc help", login="bob")
        second = until_offered(world, 2)["number"]
        close(world, second)
        redeliver_everything(world)
        restart(world)
        assert len(offers(world)) == 2

        reinstall(world)
        third = until_offered(world, 3)
        assert third["state"] == "open"
        assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]


def test_death_after_every_write_leaves_one_of_everything(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    with onboarding_world(tmp_path, test_deaths=str(deaths)) as world:
        lives = 0
        while lives < 12:
            lives += 1
            world.start()
            # The last life has nothing left to write and lives on.
            if world.wait_ready() and offers(world) and world.process is not None:
                try:
                    world.process.wait(timeout=1.5)
                except subprocess.TimeoutExpired:
                    break
            if world.process is not None:
                world.process.wait(timeout=20)

        written = [line.split(" in ")[0] for line in deaths.read_text().splitlines() if line.startswith("write ")]
        own = [line for line in written if f"/repos/{REPOSITORY}/" in line or "graphql" in line]
        assert own == [
            f"write POST /repos/{REPOSITORY}/labels",
            f"write POST /repos/{REPOSITORY}/git/refs",
            "write POST /graphql",
            f"write POST /repos/{REPOSITORY}/pulls",
            f"write POST /repos/{REPOSITORY}/check-runs",
        ]
        assert len(offers(world)) == 1
        assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]


def test_branch_of_an_interrupted_attempt_is_taken_up_after_the_default_branch_has_moved(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        head = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/main")["object"]["sha"]
        refs = {"ref": "refs/heads/postdoc/configure", "sha": head}
        world.api("ada", "POST", f"/repos/{REPOSITORY}/git/refs", json=refs)
        world.commit("notes.md", "moved\n")
        world.start()
        until_offered(world)
        assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]


def test_branch_of_that_name_with_a_persons_commits_is_left_alone(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        head = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/main")["object"]["sha"]
        refs = {"ref": "refs/heads/postdoc/configure", "sha": head}
        world.api("ada", "POST", f"/repos/{REPOSITORY}/git/refs", json=refs)
        mine = world.commit("mine.md", "mine\n", branch="postdoc/configure")
        world.start()
        world.until(lambda: "commits of somebody else's" in world.log(), "the reason in the log")
        assert offers(world) == []
        assert world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/postdoc/configure")["object"]["sha"] == mine


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        world.commit(".github/ISSUE_TEMPLATE/goal.yaml", "name: ours\n")
        world.commit(".github/ISSUE_TEMPLATE/config.yml", "blank_issues_enabled: false\n")
        world.start()
        offer = until_offered(world)
        files = world.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{offer['number']}/files")
        assert [each["filename"] for each in files] == [".github/postdoc.yml"]


def test_another_label_is_in_the_form_and_in_the_policy(tmp_path: Path) -> None:
    with onboarding_world(tmp_path, label='train: "now"') as world:
        world.start()
        until_offered(world)
        assert 'train: "now"' in labels(world)
        form = yaml.safe_load(world.file("postdoc/configure", ".github/ISSUE_TEMPLATE/goal.yml"))
        assert form["labels"] == ['train: "now"']
        policy = parse_policy(world.file("postdoc/configure", ".github/postdoc.yml")).policy
        assert policy is not None and policy.labels.goal == 'train: "now"'


def test_configured_forked_archived_and_empty_repositories_are_never_asked(tmp_path: Path) -> None:
    with onboarding_world(tmp_path, policy="month:\n  usd: 5\n") as world:
        forge = world.forge
        forge.add_repository("acme", "source", {"README.md": "# s\n"})
        archived = forge.add_repository("acme", "archived", {"README.md": "# a\n"})
        archived.archived = True
        forge.add_repository("acme", "empty")
        forge.add_repository("acme", "fresh", {"README.md": "# f\n"})
        fork = forge.fork("acme/source", "bob")
        for name in ("acme/archived", "acme/empty", "acme/fresh"):
            forge.add_collaborator(name, "ada", "admin")
            forge.install_app(world.app_id, name)
        forge.install_app(world.app_id, fork.full_name)
        world.start()
        world.until(lambda: offers(world, "acme/fresh"), "the one pull request")
        settled(world)
        everywhere = [
            pull for r in forge.repositories.values() for pull in r.pulls if pull.head_ref == "postdoc/configure"
        ]
        assert [pull.repository.full_name for pull in everywhere] == ["acme/fresh"]


def test_large_installation_gets_a_few_an_hour_also_across_restarts(tmp_path: Path) -> None:
    with onboarding_world(tmp_path, onboarding_per_hour="3") as world:
        names = [f"acme/r{n:02d}" for n in range(12)]
        for name in names:
            world.forge.add_repository("acme", name.partition("/")[2], {"README.md": "# r\n"})
        world.forge.install_app(world.app_id, *names)

        def opened() -> int:
            return sum(p.head_ref == "postdoc/configure" for r in world.forge.repositories.values() for p in r.pulls)

        world.start()
        world.until(lambda: opened() >= 3, "the first three")
        restart(world)
        settled(world)
        assert opened() == 3


def test_two_servers_at_once_open_one(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        other = World(**{f: getattr(world, f) for f in world.__dataclass_fields__ if f not in ("process", "read")})
        other.port = _free_port()
        other.environment = world.environment | {
            "POSTDOC_PORT": str(other.port), "POSTDOC_DATA_FOLDER": str(tmp_path / "other"),
        }  # fmt: skip
        try:
            world.start()
            other.start()
            assert world.wait_ready() and other.wait_ready()
            until_offered(world)
            settled(world)
            assert len(offers(world)) == 1
            assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]
        finally:
            other.stop()


def test_onboarding_can_be_turned_off(tmp_path: Path) -> None:
    with onboarding_world(tmp_path, onboarding="false") as world:
        world.start()
        assert world.wait_ready()
        world.forge.install_app(world.app_id, REPOSITORY)
        settled(world)
        assert offers(world) == []


def test_outage_in_the_middle_is_waited_out(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        faults = world.forge.faults
        faults.secondary_limit(matches=lambda method, path: (method, path) == ("POST", f"/repos/{REPOSITORY}/pulls"))
        faults.secondary_limit(matches=lambda method, path: path == "/installation/repositories")
        world.start()
        until_offered(world)
        assert world.log().count("has to wait") == 2
