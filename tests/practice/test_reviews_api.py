"""Reviews, comments on lines, and suggestions that a person commits."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bot.practice.replies import ApiError
from bot.practice.suggestions import blocks

from .conftest import RECIPE, REPOSITORY, World

PATH = "experiments/1/recipe.yaml"
MINIMIZE = "mutation($id: ID!) { minimizeComment(input: {subjectId: $id, classifier: OUTDATED}) \
{ minimizedComment { isMinimized minimizedReason } } }"


def suggestion(text: str) -> str:
    return f"Too low.\n\n```suggestion\n{text}\n```\n"


def review(client: httpx.Client, world: World, *comments: dict[str, Any], **fields: object) -> httpx.Response:
    body = {"event": "COMMENT", "body": "Run 1", "comments": list(comments)} | fields
    return client.post(world.repo("/pulls/1/reviews"), json=body)


def line_comment(line: int, body: str = "hm", **fields: object) -> dict[str, Any]:
    return {"path": PATH, "line": line, "side": "RIGHT", "body": body} | fields


def comments(world: World) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = world.as_user("ada").get(world.repo("/pulls/1/comments")).json()
    return listed


def test_review_with_line_comments(world: World, bot: httpx.Client):
    world.pull(bot)
    answer = review(bot, world, line_comment(1, suggestion("learning_rate: 1e-3")), line_comment(3, start_line=2))
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["commit_id"]) == ("COMMENTED", world.tip("work"))
    first, second = comments(world)
    assert (first["line"], first["side"], first["position"], first["subject_type"]) == (1, "RIGHT", 1, "line")
    assert first["diff_hunk"] == "@@ -0,0 +1,5 @@\n+learning_rate: 2e-5"
    assert (second["start_line"], second["line"], second["start_side"]) == (2, 3, "RIGHT")
    assert world.names("pull_request_review", "pull_request_review_comment") == [
        "pull_request_review.submitted",
        "pull_request_review_comment.created",
        "pull_request_review_comment.created",
    ]
    path = world.repo(f"/pulls/1/reviews/{answer.json()['id']}")
    assert bot.get(path).json()["body"] == "Run 1"
    assert len(bot.get(f"{path}/comments").json()) == 2
    assert bot.put(path, json={"body": "Run 1, corrected"}).json()["body"] == "Run 1, corrected"
    assert len(bot.get(world.repo("/pulls/1/reviews")).json()) == 1
    assert bot.get(world.repo("/pulls/1")).json()["review_comments"] == 2


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        (line_comment(6), "Line could not be resolved"),
        (line_comment(0), "Line could not be resolved"),
        (line_comment(1, side="LEFT"), "Line could not be resolved"),
        (line_comment(1, side="MIDDLE"), "Side could not be resolved"),
        ({"path": "README.md", "line": 1, "body": "x"}, "Path could not be resolved"),
        (line_comment(2, start_line=9), "Start line could not be resolved"),
        (line_comment(2, start_line=3), "Start line must precede the end line."),
        ({"path": PATH, "position": 99, "body": "x"}, "Position could not be resolved"),
        (line_comment(1, body=" "), "Body can't be blank"),
    ],
)
def test_review_of_a_line_outside_the_diff_leaves_nothing(
    world: World, bot: httpx.Client, comment: dict[str, Any], words: str
):
    world.pull(bot)
    answer = review(bot, world, line_comment(1), comment)
    assert answer.status_code == 422
    assert words in answer.text
    assert bot.get(world.repo("/pulls/1/reviews")).json() == []
    assert world.names("pull_request_review") == []


def test_author_cannot_approve_or_request_changes(world: World, bot: httpx.Client, ada: httpx.Client):
    world.pull(bot)
    for event, words in (("APPROVE", "approve"), ("REQUEST_CHANGES", "request changes on")):
        answer = review(bot, world, event=event)
        assert (answer.status_code, answer.json()["errors"]) == (422, [f"Can not {words} your own pull request"])
    assert review(ada, world, event="REQUEST_CHANGES").json()["state"] == "CHANGES_REQUESTED"
    assert review(ada, world, event="APPROVE", body="").json()["state"] == "APPROVED"
    assert review(ada, world, event="REQUEST_CHANGES", body="").status_code == 422
    assert review(ada, world, event="LIKE").status_code == 422
    assert review(ada, world, body="").status_code == 422
    assert review(ada, world, body="x" * 65_537).status_code == 422
    assert review(ada, world, line_comment(1), commit_id="0" * 40).status_code == 422


def test_pending_review_is_seen_by_its_author_until_submitted(world: World, bot: httpx.Client, ada: httpx.Client):
    world.pull(bot)
    pending = review(ada, world, line_comment(1), event=None).json()
    assert pending["state"] == "PENDING"
    assert bot.get(world.repo("/pulls/1/comments")).json() == []
    submitted = ada.post(world.repo(f"/pulls/1/reviews/{pending['id']}/events"), json={"event": "COMMENT"})
    assert submitted.json()["state"] == "COMMENTED"
    assert len(bot.get(world.repo("/pulls/1/comments")).json()) == 1


def test_single_comment_reply_edit_and_delete(world: World, bot: httpx.Client, ada: httpx.Client):
    head = world.pull(bot)["head"]["sha"]
    made = ada.post(world.repo("/pulls/1/comments"), json=line_comment(2, "why?") | {"commit_id": head})
    assert made.status_code == 201
    number = made.json()["id"]
    answer = bot.post(world.repo(f"/pulls/1/comments/{number}/replies"), json={"body": "because"})
    again = bot.post(world.repo("/pulls/1/comments"), json={"body": "and", "in_reply_to": answer.json()["id"]})
    assert [answer.json()["in_reply_to_id"], again.json()["in_reply_to_id"]] == [number, number]
    path = world.repo(f"/pulls/comments/{number}")
    assert bot.patch(path, json={"body": "edited by the bot"}).status_code == 200  # write permission edits any comment
    assert world.events()[-1].payload["changes"] == {"body": {"from": "why?"}}
    assert bot.post(f"{path}/reactions", json={"content": "+1"}).status_code == 201
    assert ada.get(path).json()["reactions"]["+1"] == 1
    assert ada.delete(path).status_code == 204
    assert len(bot.get(world.repo("/pulls/comments")).json()) == 2
    outside = ada.post(world.repo("/pulls/1/comments"), json=line_comment(99) | {"commit_id": head})
    assert (outside.status_code, outside.json()["message"]) == (422, "Validation Failed")
    assert "must be part of the diff" in outside.json()["errors"][0]["message"]
    blank = ada.post(world.repo("/pulls/1/comments"), json=line_comment(1, "") | {"commit_id": head})
    stray = ada.post(world.repo("/pulls/1/comments"), json=line_comment(1) | {"commit_id": "0" * 40})
    assert (blank.status_code, stray.status_code) == (422, 422)
    file = {"path": PATH, "body": "the whole file", "subject_type": "file", "commit_id": head}
    whole = ada.post(world.repo("/pulls/1/comments"), json=file).json()
    assert (whole["subject_type"], whole.get("line")) == ("file", None)


def test_comments_follow_their_lines_and_become_outdated(world: World, bot: httpx.Client):
    world.pull(bot)
    review(bot, world, line_comment(1, "rate"), line_comment(4, "seed"))
    world.commit(bot, {PATH: "# a new first line\nlearning_rate: 1e-3\n" + RECIPE.split("\n", 1)[1]})
    rate, seed = comments(world)
    assert (rate.get("line"), rate["original_line"], rate["commit_id"]) == (None, 1, rate["original_commit_id"])
    assert (seed["line"], seed["original_line"], seed["commit_id"]) == (5, 4, world.tip("work"))


def test_suggestion_becomes_a_commit_by_the_person(world: World, bot: httpx.Client):
    world.pull(bot)
    review(bot, world, line_comment(1, suggestion("learning_rate: 1e-3")))
    (comment,) = comments(world)
    assert world.forge.suggestion_refusal(comment["id"], "ada") is None
    commit = world.forge.accept_suggestion(comment["id"], "ada")
    assert world.tip("work") == commit.oid
    assert (commit.author.name, commit.committer.name) == ("Ada", "GitHub")
    bot_id = world.forge.user("postdoc[bot]").id
    assert commit.message == (
        f"Update {PATH}\n\nCo-authored-by: postdoc[bot] <{bot_id}+postdoc[bot]@users.noreply.github.com>"
    )
    shown = bot.get(world.repo(f"/commits/{commit.oid}")).json()
    assert (shown["author"]["login"], shown["commit"]["verification"]["verified"]) == ("ada", True)
    text = bot.get(world.repo(f"/contents/{PATH}?ref=work"), headers={"accept": "application/vnd.github.raw"}).text
    assert text == RECIPE.replace("2e-5", "1e-3")
    event = next(each.payload for each in world.events() if each.name == "pull_request.synchronize")
    assert (event["sender"]["login"], event["after"]) == ("ada", commit.oid)
    with pytest.raises(ApiError, match="applied"):
        world.forge.accept_suggestion(comment["id"], "ada")


def test_suggestions_are_refused_as_on_github(world: World, bot: httpx.Client):
    world.pull(bot)
    same = line_comment(2, suggestion("max_length: 1024"))
    review(bot, world, line_comment(1, suggestion("learning_rate: 1e-3")), same, line_comment(3, "no block"))
    rate, unchanged, plain = (each["id"] for each in comments(world))
    for login in ("eve", "carl"):
        with pytest.raises(ApiError, match="permission"):
            world.forge.accept_suggestion(rate, login)
    with pytest.raises(ApiError, match="no changes"):
        world.forge.accept_suggestion(unchanged, "ada")
    with pytest.raises(ApiError, match="no suggestion"):
        world.forge.accept_suggestion(plain, "ada")
    world.commit(bot, {PATH: RECIPE.replace("2e-5", "3e-5")})
    with pytest.raises(ApiError, match="Outdated"):
        world.forge.accept_suggestion(rate, "ada")
    bot.patch(world.repo("/pulls/1"), json={"state": "closed"})
    with pytest.raises(ApiError, match="closed"):
        world.forge.accept_suggestion(unchanged, "ada")
    assert [each.author.name for each in world.forge.pull_commits(world.forge.repository(REPOSITORY).pulls[0])] == [
        "postdoc[bot]",
        "postdoc[bot]",
    ]


def test_several_suggestions_become_one_commit(world: World, bot: httpx.Client):
    world.pull(bot)
    many = line_comment(3, suggestion("max_length: 512\nnum_train_epochs: 3\nweight_decay: 0.1"), start_line=2)
    review(bot, world, line_comment(1, suggestion("learning_rate: 1e-3")), many, line_comment(5, "```suggestion\n```"))
    ids = [each["id"] for each in comments(world)]
    commit = world.forge.accept_suggestions(ids, "dora")
    assert commit.message.startswith("Apply suggestions from code review")
    text = world.forge.repository(REPOSITORY).git.file_at(commit.oid, PATH)
    expected = "learning_rate: 1e-3\nmax_length: 512\nnum_train_epochs: 3\nweight_decay: 0.1\nseed: 0\n"
    assert text is not None
    assert text.decode() == expected


def test_overlapping_suggestions_are_refused_together(world: World, bot: httpx.Client):
    world.pull(bot)
    review(bot, world, line_comment(1, suggestion("a: 1")), line_comment(2, suggestion("b: 2"), start_line=1))
    with pytest.raises(ApiError, match="one suggestion per line"):
        world.forge.accept_suggestions([each["id"] for each in comments(world)], "ada")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("```suggestion\na: 1\n```", ["a: 1\n"]),
        ("x\r\n```suggestion\r\na: 1\r\n```\r\n", ["a: 1\n"]),
        ("````suggestion\n```\ncode\n```\n````", ["```\ncode\n```\n"]),
        ("```suggestion\n```", [""]),
        ("```yaml\na: 1\n```", []),
        ("inline ```suggestion a```", []),
        ("```suggestion\none\n```\n\n```suggestion\ntwo\n```", ["one\n", "two\n"]),
    ],
)
def test_suggestion_blocks_are_found(body: str, found: list[str]):
    assert blocks(body) == found


def test_comment_is_minimized(world: World, bot: httpx.Client, ada: httpx.Client, eve: httpx.Client):
    world.pull(bot)
    made = bot.post(world.repo("/issues/1/comments"), json={"body": "old news"}).json()
    answer = world.graphql(bot, MINIMIZE, id=made["node_id"])
    assert answer["data"]["minimizeComment"]["minimizedComment"] == {"isMinimized": True, "minimizedReason": "outdated"}
    denied = world.graphql(eve, MINIMIZE, id=made["node_id"])
    assert denied["errors"][0]["type"] == "FORBIDDEN"


def test_threads_are_resolved_through_graphql(world: World, bot: httpx.Client):
    pull = world.pull(bot)
    review(bot, world, line_comment(1, suggestion("learning_rate: 1e-3")), line_comment(2))
    query = "query($id: ID!) { node(id: $id) { ... on PullRequest { reviewThreads(first: 10) { nodes { id isResolved \
isOutdated path line comments(first: 1) { nodes { body outdated } } } } } } }"

    def threads() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = world.graphql(bot, query, id=pull["node_id"])["data"]["node"]["reviewThreads"][
            "nodes"
        ]
        return found

    world.forge.accept_suggestion(comments(world)[0]["id"], "ada")
    accepted, other = threads()
    assert (accepted["isResolved"], accepted["isOutdated"], other["isResolved"]) == (True, True, False)
    resolve = "mutation($id: ID!) { resolveReviewThread(input: {threadId: $id}) { thread { isResolved } } }"
    world.graphql(bot, resolve, id=other["id"])
    assert [each["isResolved"] for each in threads()] == [True, True]
