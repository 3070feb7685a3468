"""Pull requests: opening, following pushes, drafts, closing, merging."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .conftest import COMMIT, RECIPE, REPOSITORY, World

READY = "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft } } }"
DRAFT = "mutation($id: ID!) { convertPullRequestToDraft(input: {pullRequestId: $id}) { pullRequest { isDraft } } }"


def test_pull_request_has_its_real_diff(world: World, bot: httpx.Client):
    pull = world.pull(bot, draft=True, body="a plan")
    assert (pull["draft"], pull["additions"], pull["changed_files"], pull["commits"]) == (True, 5, 1, 1)
    assert (pull["mergeable"], pull["mergeable_state"]) == (True, "draft")
    assert pull["user"]["login"] == "postdoc[bot]"
    path = world.repo(f"/pulls/{pull['number']}")
    (file,) = bot.get(f"{path}/files").json()
    assert (file["filename"], file["status"], file["additions"]) == ("experiments/1/recipe.yaml", "added", 5)
    assert file["patch"].splitlines()[:2] == ["@@ -0,0 +1,5 @@", "+learning_rate: 2e-5"]
    assert [each["sha"] for each in bot.get(f"{path}/commits").json()] == [world.tip("work")]
    diff = bot.get(path, headers={"accept": "application/vnd.github.diff"})
    assert diff.text.startswith("diff --git a/experiments/1/recipe.yaml b/experiments/1/recipe.yaml")
    patch = bot.get(path, headers={"accept": "application/vnd.github.patch"})
    assert patch.text.startswith(f"From {world.tip('work')}")
    assert [each["number"] for each in bot.get(world.repo(f"/commits/{world.tip('work')}/pulls")).json()] == [1]


def test_head_follows_commits_and_says_synchronize(world: World, bot: httpx.Client):
    pull = world.pull(bot)
    before = pull["head"]["sha"]
    after = world.commit(bot, {"experiments/1/train.py": "print()\n"})
    shown = bot.get(world.repo("/pulls/1")).json()
    assert (shown["head"]["sha"], shown["changed_files"], shown["commits"]) == (after, 2, 2)
    assert world.names("pull_request") == ["pull_request.opened", "pull_request.synchronize"]
    event = next(each.payload for each in world.events() if each.name == "pull_request.synchronize")
    assert (event["before"], event["after"], event["number"]) == (before, after, 1)
    assert event["pull_request"]["head"]["sha"] == after
    assert world.forge.repository(REPOSITORY).git.ref("refs/pull/1/head") == after


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"head": "work", "base": "main"}, "A pull request already exists for acme:work."),
        ({"head": "main", "base": "main"}, "No commits between main and main"),
        ({"head": "nothing", "base": "main"}, "head"),
        ({"head": "work", "base": "nothing"}, "base"),
        ({"head": "eve:work", "base": "main"}, "head"),
    ],
)
def test_pull_request_that_cannot_be_is_refused(world: World, bot: httpx.Client, fields: dict[str, Any], words: str):
    world.pull(bot)
    answer = bot.post(world.repo("/pulls"), json={"title": "again"} | fields)
    assert answer.status_code == 422
    assert words in answer.text
    assert len(bot.get(world.repo("/pulls"), params={"state": "all"}).json()) == 1


def test_draft_changes_through_graphql_only(world: World, bot: httpx.Client):
    pull = world.pull(bot, draft=True)
    assert bot.patch(world.repo("/pulls/1"), json={"draft": False}).json()["draft"] is True
    answer = world.graphql(bot, READY, id=pull["node_id"])
    assert answer["data"]["markPullRequestReadyForReview"]["pullRequest"] == {"isDraft": False}
    world.graphql(bot, READY, id=pull["node_id"])
    world.graphql(bot, DRAFT, id=pull["node_id"])
    assert world.names("pull_request")[1:] == ["pull_request.ready_for_review", "pull_request.converted_to_draft"]
    assert world.graphql(bot, READY, id="PR_nope")["errors"][0]["type"] == "NOT_FOUND"


def test_closing_stops_following_and_reopening_catches_up(world: World, bot: httpx.Client):
    first = world.pull(bot)["head"]["sha"]
    assert bot.patch(world.repo("/pulls/1"), json={"state": "closed"}).json()["state"] == "closed"
    second = world.commit(bot, {"x": "1"})
    assert bot.get(world.repo("/pulls/1")).json()["head"]["sha"] == first
    assert bot.patch(world.repo("/pulls/1"), json={"state": "open"}).json()["head"]["sha"] == second
    assert world.names("pull_request")[1:] == ["pull_request.closed", "pull_request.reopened"]


def test_edit_sends_what_changed(world: World, bot: httpx.Client):
    world.pull(bot, body="old")
    shown = bot.patch(world.repo("/pulls/1"), json={"title": "New", "body": "new"}).json()
    assert (shown["title"], shown["body"]) == ("New", "new")
    payload = world.events()[-1].payload
    assert payload["changes"] == {"title": {"from": "Experiment"}, "body": {"from": "old"}}


def test_deleting_the_branch_closes_the_pull_request(world: World, bot: httpx.Client):
    world.pull(bot)
    bot.delete(world.repo("/git/refs/heads/work"))
    assert bot.get(world.repo("/pulls/1")).json()["state"] == "closed"
    assert bot.patch(world.repo("/pulls/1"), json={"state": "open"}).status_code == 422


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_merge_makes_a_commit_on_the_base(world: World, bot: httpx.Client, ada: httpx.Client, method: str):
    world.pull(bot)
    path = world.repo("/pulls/1/merge")
    assert ada.get(path).status_code == 404
    stale = ada.put(path, json={"sha": "0" * 40})
    assert stale.status_code == 409
    merged = ada.put(path, json={"merge_method": method, "sha": world.tip("work")})
    assert merged.json()["sha"] == world.tip("main")
    assert ada.get(path).status_code == 204
    assert ada.get(world.repo("/contents/experiments/1/recipe.yaml")).status_code == 200
    shown = ada.get(world.repo("/pulls/1")).json()
    assert (shown["merged"], shown["state"], shown["merged_by"]["login"]) == (True, "closed", "ada")
    assert shown["changed_files"] == 1
    parents = len(ada.get(world.repo("/commits/main")).json()["parents"])
    assert parents == (2 if method == "merge" else 1)
    assert world.names("pull_request")[-1] == "pull_request.closed"
    assert world.events()[-1].payload["pull_request"]["merged"] is True
    assert ada.put(path).status_code == 405


def test_merge_of_a_draft_or_a_conflict_is_refused(world: World, bot: httpx.Client, ada: httpx.Client):
    pull = world.pull(bot, {"README.md": "# Ours\n"}, draft=True)
    assert ada.put(world.repo("/pulls/1/merge")).status_code == 405
    world.graphql(bot, READY, id=pull["node_id"])
    world.commit(ada, {"README.md": "# Theirs\n"}, branch="main")
    shown = ada.get(world.repo("/pulls/1")).json()
    assert (shown["mergeable"], shown["mergeable_state"]) == (False, "dirty")
    assert ada.put(world.repo("/pulls/1/merge")).status_code == 405


def test_branch_is_updated_from_its_base(world: World, bot: httpx.Client, ada: httpx.Client):
    world.pull(bot)
    assert ada.put(world.repo("/pulls/1/update-branch")).status_code == 422
    world.commit(ada, {"other.txt": "x"}, branch="main")
    assert ada.put(world.repo("/pulls/1/update-branch")).status_code == 202
    assert [each["filename"] for each in ada.get(world.repo("/pulls/1/files")).json()] == ["experiments/1/recipe.yaml"]


def test_pull_requests_are_listed_by_head_base_and_state(world: World, bot: httpx.Client):
    world.pull(bot)

    def get(**query: Any) -> list[int]:
        return [each["number"] for each in bot.get(world.repo("/pulls"), params=query).json()]

    assert get(head="acme:work") == [1]
    assert get(head="acme:other") == []
    assert get(base="main", state="open") == [1]
    assert get(state="closed") == []


def test_fork_pull_request_shows_its_own_repository(world: World, eve: httpx.Client, bot: httpx.Client):
    assert eve.post(world.repo("/forks")).status_code == 202
    sha = world.tip()
    eve.post("/repos/eve/lab/git/refs", json={"ref": "refs/heads/evil", "sha": sha})
    put = {"message": "Change", "content": "eA==", "branch": "evil"}
    assert eve.put("/repos/eve/lab/contents/x", json=put).status_code == 201
    pull = eve.post(world.repo("/pulls"), json={"title": "From a fork", "head": "eve:evil", "base": "main"})
    assert pull.status_code == 201, pull.text
    shown = bot.get(world.repo("/pulls/1")).json()
    assert (shown["head"]["repo"]["full_name"], shown["head"]["repo"]["fork"]) == ("eve/lab", True)
    assert shown["author_association"] == "NONE"
    assert eve.put("/repos/eve/lab/contents/y", json=put).status_code == 201
    assert bot.get(world.repo("/pulls/1")).json()["changed_files"] == 2
    assert "pull_request.synchronize" in world.names("pull_request")
    assert bot.put("/repos/eve/lab/contents/z", json=put).status_code == 403


def test_stranger_cannot_open_a_pull_request_from_a_branch_here(world: World, bot: httpx.Client, eve: httpx.Client):
    world.commit(bot, {"x": "1"})
    assert eve.post(world.repo("/pulls"), json={"title": "x", "head": "work", "base": "main"}).status_code == 403


def test_reviewers_are_requested(world: World, bot: httpx.Client):
    world.pull(bot)
    path = world.repo("/pulls/1/requested_reviewers")
    assert bot.post(path, json={"reviewers": ["ada"]}).json()["requested_reviewers"][0]["login"] == "ada"
    assert bot.post(path, json={"reviewers": ["nobody"]}).status_code == 422
    assert world.names("pull_request")[-1] == "pull_request.review_requested"


def test_renames_and_binaries_are_shown_as_github_shows_them(world: World, ada: httpx.Client):
    world.commit(ada, {"long.txt": "".join(f"line {n}\n" for n in range(30)), "b.bin": "\0\1\2"}, branch="main")
    world.commit(ada, {"moved.txt": "".join(f"line {n}\n" for n in range(30)), "b.bin": "\0\1\3"})
    deletion = {
        "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": "work"},
        "expectedHeadOid": world.tip("work"),
        "message": {"headline": "Remove"},
        "fileChanges": {"deletions": [{"path": "long.txt"}]},
    }
    assert "errors" not in world.graphql(ada, COMMIT, input=deletion)
    world.pull(ada, {"README.md": RECIPE})
    files = {each["filename"]: each for each in ada.get(world.repo("/pulls/1/files")).json()}
    assert (files["moved.txt"]["status"], files["moved.txt"]["previous_filename"]) == ("renamed", "long.txt")
    assert "patch" not in files["moved.txt"]
    assert "patch" not in files["b.bin"]
    assert files["README.md"]["status"] == "modified"
