"""A person edits the cards of a pull request, and the data deny it: a review comment stands on that line."""

from __future__ import annotations

from tests.world import World


def test_a_card_that_the_data_deny_is_answered_on_its_lines(world: World) -> None:
    issue = world.open_goal()
    contract = world.until_event(issue, "contract_read")["data"]
    assert world.until_ended(issue) == "met"
    pull = world.first(issue, "proposed")["pull_request"]
    before = {comment["id"] for comment in world.review_comments(pull)}
    reviews = len(world.reviews(pull))
    path = f"{contract['folder']}/data/README.md"
    card = world.file(contract["branch"], path)
    assert "license: cc-by-4.0" in card and "200 training rows" in card
    edited = card.replace("license: cc-by-4.0", "license: mit").replace(
        "200 training rows and", "9,000 training rows and"
    )
    sha = world.commit(path, edited + "\nIt was decontaminated.\n", branch=contract["branch"])
    world.until(
        lambda: any(e["data"].get("head_sha") == sha for e in world.events(issue) if e["kind"] == "head_read"),
        "the push",
    )
    said = [comment for comment in world.review_comments(pull) if comment["id"] not in before]
    assert {(comment["path"], comment["line"]) for comment in said} == {
        (path, edited.splitlines().index(line) + 1)
        for line in edited.splitlines() if line == "license: mit" or line.startswith("9,000 training rows")
    }  # fmt: skip
    licence = next(comment["body"] for comment in said if "Licence" in comment["body"])
    assert "```suggestion\nlicense: cc-by-4.0\n```" in licence
    assert any("Counted were 200 training rows" in comment["body"] for comment in said)
    assert len(world.reviews(pull)) == reviews + 1
    # What stands is not answered again when something else is pushed.
    second = world.commit(path, edited + "\nIt was decontaminated.\nA word more.\n", branch=contract["branch"])
    world.until(
        lambda: any(e["data"].get("head_sha") == second for e in world.events(issue) if e["kind"] == "head_read"),
        "the push",
    )
    assert len(world.reviews(pull)) == reviews + 1
