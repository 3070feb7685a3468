"""The practice forge's pages over HTTP: what a newcomer reads and does in a browser, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.practice.pages_browser import Browser, Page
from tests.practice.pages_world import RECIPE, World, running

BANNER = "Practice forge: a local stand-in for GitHub. Nothing here leaves this machine."


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def ada(world: World) -> Iterator[Browser]:
    browser = Browser(world.url).sign_in("ada")
    yield browser
    browser.close()


@pytest.fixture
def stranger(world: World) -> Iterator[Browser]:
    browser = Browser(world.url)
    yield browser
    browser.close()


def mallory(world: World) -> Browser:
    return Browser(world.url).sign_in("mallory")


# Every page


def test_every_page_says_what_it_is_and_loads_nothing_from_elsewhere(world: World, ada: Browser) -> None:
    number, head = world.pull()
    world.review(number, head)
    world.check(head, status="in_progress")
    issue = world.issue()
    for path in (
        "/", "/acme/lab", "/acme/lab/tree/main/data", "/acme/lab/blob/main/src/model.py", "/acme/lab/commits/main",
        f"/acme/lab/commit/{head}", "/acme/lab/issues", "/acme/lab/pulls?state=closed", f"/acme/lab/issues/{issue}",
        "/acme/lab/issues/new/choose", "/acme/lab/issues/new?template=goal.yml", "/acme/lab/issues/new?blank=1",
        f"/acme/lab/pull/{number}", f"/acme/lab/pull/{number}/files", f"/acme/lab/pull/{number}/commits",
        f"/acme/lab/pull/{number}/checks", "/acme/lab/edit/main/src/model.py", "/acme/lab/issues/999",
    ):  # fmt: skip
        page = ada.get(path)
        assert page.status == (404 if "999" in path else 200), path
        assert BANNER in page.text, path
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "style=" not in page.html, path
        assert "<script>" not in page.html, path
        assert 'src="http' not in page.html, path


def test_static_files_are_ours_alone(stranger: Browser) -> None:
    assert stranger.get("/-/static/practice.css").headers["content-type"].startswith("text/css")
    assert stranger.get("/-/static/practice.js").status == 200
    assert stranger.get("/-/static/..%2f__init__.py").status == 404
    for name in ("practice.css", "practice.js"):
        assert "http" not in stranger.get(f"/-/static/{name}").html.replace("http-equiv", "")


# Who may do what


def test_private_repository_is_not_there_for_others(world: World, ada: Browser, stranger: Browser) -> None:
    assert "acme/secret" in ada.get("/").text
    assert "acme/secret" not in stranger.get("/").text
    assert ada.get("/acme/secret").status == 200
    refused = stranger.get("/acme/secret/blob/main/README.md")
    assert refused.status == 404
    assert "hidden words" not in refused.html
    assert "nothing here that you may see" in refused.text


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test:80", "10.0.0.1", ""])
def test_other_host_names_are_refused(world: World, stranger: Browser, host: str) -> None:
    page = stranger.get("/", Host=host)
    assert page.status in (400, 421)
    assert "acme/lab" not in page.text


def test_localhost_by_name_is_answered(world: World, stranger: Browser) -> None:
    assert stranger.get("/", Host=f"localhost:{world.url.rpartition(':')[2]}").status == 200


def test_form_without_its_token_does_nothing(world: World, ada: Browser) -> None:
    number = world.issue()
    path = f"/acme/lab/issues/{number}/comments"
    for data in ({"body": "x"}, {"body": "x", "csrf": "0" * 64}):
        reply = ada.client.post(path, data=data)
        assert reply.status_code == 403
        assert "Reload it" in reply.text
    assert world.ask(world.ada, "GET", f"/issues/{number}/comments") == []


def test_token_of_another_browser_does_not_count(world: World, ada: Browser) -> None:
    number = world.issue()
    other = mallory(world)
    token = dict(other.get(f"/acme/lab/issues/{number}").form("/comments").fields)["csrf"]
    assert ada.client.post(f"/acme/lab/issues/{number}/comments", data={"body": "x", "csrf": token}).status_code == 403
    other.close()


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_form_from_another_site_is_refused_even_with_its_token(
    world: World, ada: Browser, headers: dict[str, str]
) -> None:
    number = world.issue()
    fields = dict(ada.get(f"/acme/lab/issues/{number}").form("/comments").fields) | {"body": "x"}
    assert ada.client.post(f"/acme/lab/issues/{number}/comments", data=fields, headers=headers).status_code == 403
    assert world.ask(world.ada, "GET", f"/issues/{number}/comments") == []


def test_forged_cookie_is_nobody(world: World, stranger: Browser) -> None:
    stranger.get("/")
    (name,) = stranger.client.cookies.keys()
    stranger.client.cookies.set(name, "nonce.ada." + "0" * 64, domain="127.0.0.1")
    assert "Signed in as" not in stranger.get("/").html


def test_person_can_be_switched_and_signed_out(ada: Browser) -> None:
    page = ada.get("/acme/lab")
    assert 'aria-label="Signed in as ada' in page.html
    page = ada.send(page, page.forms[0], button=("login", "ben"))
    assert page.url.endswith("/acme/lab")
    assert 'aria-label="Signed in as ben' in page.html
    page = ada.send(page, page.forms[0], button=("login", ""))
    assert "Signed in as" not in page.html


@pytest.mark.parametrize("back", ["https://evil.test/", "//evil.test/", "/\\evil.test", "javascript:alert(1)", ""])
def test_sign_in_leads_back_to_this_site_only(stranger: Browser, back: str) -> None:
    page = stranger.get("/")
    csrf = dict(page.forms[0].fields)["csrf"]
    reply = stranger.client.post("/-/sign-in", data={"csrf": csrf, "login": "ada", "back": back})
    assert reply.headers["location"] == "/"


def test_refusal_is_a_sentence_and_keeps_what_was_typed(world: World) -> None:
    number, _ = world.pull()
    other = mallory(world)
    page = other.get(f"/acme/lab/pull/{number}")
    assert not [form for form in page.forms if form.action.endswith("/merge")]
    fields = {"csrf": dict(page.forms[0].fields)["csrf"], "sha": "x"}
    reply = other.client.post(f"/acme/lab/pull/{number}/merge", data=fields)
    assert reply.status_code == 403
    assert "mallory may not do this" in reply.text
    long = page.form("/comments")
    refused = other.send(page, long, body="long words " * 7_000)
    assert refused.status == 422
    assert "long words long words" in refused.html
    other.close()


def test_acting_without_a_person_is_refused(world: World, stranger: Browser) -> None:
    number = world.issue()
    page = stranger.get(f"/acme/lab/issues/{number}")
    assert not [form for form in page.forms if form.action.endswith("/comments")]
    csrf = dict(page.forms[0].fields)["csrf"]
    reply = stranger.client.post(f"/acme/lab/issues/{number}/comments", data={"csrf": csrf, "body": "x"})
    assert reply.status_code == 401
    assert "Sign in first" in reply.text


# Files


def test_files_are_shown_numbered_and_safe(ada: Browser) -> None:
    front = ada.get("/acme/lab")
    assert 'href="/acme/lab/blob/main/data/rows.jsonl"' in front.html
    assert "alert(1)" not in front.html
    blob = ada.get("/acme/lab/blob/main/src/model.py")
    assert 'id="L2"' in blob.html
    assert '<span class="hl-nc">Model</span>' in blob.html
    assert "&lt;script&gt;" in ada.get("/acme/lab/blob/main/page.html").html.replace("</span>", "").replace(
        '<span class="hl-p">', ""
    ).replace('<span class="hl-nt">', "")


def test_raw_file_cannot_run_as_a_page(ada: Browser) -> None:
    reply = ada.client.get("/acme/lab/raw/main/page.html")
    assert reply.headers["content-type"].startswith("text/plain")
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_branch_with_a_slash_is_found(world: World, ada: Browser) -> None:
    world.pull()
    page = ada.get("/acme/lab/blob/postdoc/0001/experiments/0001/recipe.yaml")
    assert "2.0e-5" in page.text


def test_editing_a_file_commits_as_the_person(world: World, ada: Browser) -> None:
    world.pull()
    page = ada.get("/acme/lab/edit/postdoc/0001/experiments/0001/recipe.yaml")
    after = ada.send(page, page.form("recipe.yaml"), body=RECIPE + "packing: true\n", message="Pack")
    assert "packing" in after.text
    newest = world.ask(world.ada, "GET", "/commits?sha=postdoc/0001")[0]
    assert (newest["author"]["login"], newest["commit"]["message"]) == ("ada", "Pack")
    content = world.ask(world.ada, "GET", "/contents/experiments/0001/recipe.yaml?ref=postdoc/0001")["content"]
    assert base64.b64decode(content).decode() == RECIPE + "packing: true\n"


# Issues


def test_goal_form_opens_an_issue_in_githubs_words(world: World, ada: Browser) -> None:
    world.ask(world.ada, "POST", "/labels", name="Postdoc", color="b4531f")
    chooser = ada.get("/acme/lab/issues/new")
    assert chooser.url.endswith("/issues/new/choose")
    assert "broken.yml is not valid YAML" in chooser.text
    page = ada.get("/acme/lab/issues/new?template=goal.yml")
    form = page.form("/issues/new")
    answers = {"answer-model": "tiny", "answer-recipe": "seed: 3\nepochs: 2", "answer-agreed": "I may use this data."}
    after = ada.send(page, form, title="Raise tiny", answers=answers)
    assert "Raise tiny" in after.text
    issue = world.ask(world.ada, "GET", f"/issues/{after.url.rpartition('/')[2]}")
    assert issue["body"] == (
        "### Base model\n\ntiny\n\n### Starting recipe\n\n```yaml\nseed: 3\nepochs: 2\n```\n\n"
        "### Method\n\nChoose for me\n\n### Acknowledgement\n\n- [x] I may use this data."
    )
    assert [label["name"] for label in issue["labels"]] == ["Postdoc"]
    assert issue["user"]["login"] == "ada"


def test_goal_form_asks_for_what_is_missing_and_keeps_the_rest(world: World, ada: Browser) -> None:
    page = ada.get("/acme/lab/issues/new?template=goal.yml&model=tiny")
    again = ada.send(page, page.form("/issues/new"), answers={"answer-recipe": "seed: 3"})
    assert again.status == 422
    assert "Tick “I may use this data.”" in again.text
    assert "Give the issue a title of its own" in again.text
    fields = dict(again.form("/issues/new").fields)
    assert (fields["answer-model"], fields["answer-recipe"]) == ("tiny", "seed: 3")
    assert world.ask(world.ada, "GET", "/issues") == []


def test_form_gives_its_label_to_goals_of_people_without_permission_too(world: World) -> None:
    world.ask(world.ada, "POST", "/labels", name="postdoc", color="b4531f")
    other = mallory(world)
    page = other.get("/acme/lab/issues/new?template=goal.yml")
    answers = {"answer-model": "tiny", "answer-agreed": "I may use this data."}
    other.send(page, page.form("/issues/new"), title="Raise tiny", answers=answers)
    issue = world.ask(world.ada, "GET", "/issues")[0]
    assert issue["user"]["login"] == "mallory"
    assert [label["name"] for label in issue["labels"]] == ["postdoc"]
    other.close()


def test_form_opens_nothing_where_the_person_may_not_look(world: World) -> None:
    other = mallory(world)
    page = other.get("/acme/lab/issues/new?template=goal.yml")
    fields = dict(page.form("/issues/new").fields) | {"title": "x", "answer-model": "x"}
    for template in ("goal.yml", ""):
        reply = other.client.post("/acme/secret/issues/new", data=fields | {"template": template, "body": "x"})
        assert reply.status_code == 404
    assert not world.forge.repository("acme/secret").issues
    other.close()


def test_comment_is_posted_as_typed(world: World, ada: Browser) -> None:
    number = world.issue()
    page = ada.get(f"/acme/lab/issues/{number}")
    after = ada.send(page, page.form("/comments"), body="/postdoc help\nplease")
    assert "/postdoc help" in after.text
    comment = world.ask(world.ada, "GET", f"/issues/{number}/comments")[0]
    assert (comment["body"], comment["user"]["login"]) == ("/postdoc help\nplease", "ada")


def test_close_and_reopen(world: World, ada: Browser) -> None:
    number = world.issue()
    page = ada.get(f"/acme/lab/issues/{number}")
    page = ada.send(page, page.form("/comments"), button=("and", "close"))
    assert world.ask(world.ada, "GET", f"/issues/{number}")["state"] == "closed"
    ada.send(page, page.form("/comments"), button=("and", "reopen"), body="again")
    assert world.ask(world.ada, "GET", f"/issues/{number}")["state"] == "open"
    assert len(world.ask(world.ada, "GET", f"/issues/{number}/comments")) == 1


def test_empty_comment_is_refused_with_a_sentence(world: World, ada: Browser) -> None:
    page = ada.get(f"/acme/lab/issues/{world.issue()}")
    refused = ada.send(page, page.form("/comments"), body=" \n")
    assert refused.status == 422
    assert "Write something first" in refused.text


def test_own_comment_is_edited_and_deleted(world: World, ada: Browser) -> None:
    number = world.issue()
    made = world.ask(world.ada, "POST", f"/issues/{number}/comments", body="first")
    page = ada.get(f"/acme/lab/issues/{number}")
    page = ada.send(page, page.form(f"/comment/{made['id']}/edit"), body="second")
    assert world.ask(world.ada, "GET", f"/issues/comments/{made['id']}")["body"] == "second"
    ada.send(page, page.form(f"/comment/{made['id']}/delete"))
    assert world.ask(world.ada, "GET", f"/issues/{number}/comments") == []


def test_ticking_a_box_of_the_bot_edits_its_comment_as_the_person(world: World, ada: Browser) -> None:
    number = world.issue()
    body = "<!-- key -->\nLedger\n\n- [ ] Stop\n- [ ] One more hour\n"
    made = world.ask(world.bot, "POST", f"/issues/{number}/comments", body=body)
    page = ada.get(f"/acme/lab/issues/{number}")
    name, value = next((n, v) for form, n, v in page.outside if form == f"tick-comment-{made['id']}")
    form = next(form for form in page.forms if form.id == f"tick-comment-{made['id']}")
    after = ada.send(page, form, button=(name, value))
    assert world.ask(world.ada, "GET", f"/issues/comments/{made['id']}")["body"] == body.replace("[ ] Stop", "[x] Stop")
    assert 'aria-checked="true" aria-label="Stop"' in after.html
    stale = ada.send(page, form, button=(name, value))
    assert stale.status == 409
    assert "changed in the meantime" in stale.text


def test_boxes_of_others_are_not_for_strangers(world: World) -> None:
    number = world.issue()
    made = world.ask(world.bot, "POST", f"/issues/{number}/comments", body="- [ ] Stop\n")
    other = mallory(world)
    page = other.get(f"/acme/lab/issues/{number}")
    assert page.outside == []
    assert 'aria-disabled="true"' in page.html
    data = {"csrf": dict(page.forms[0].fields)["csrf"], "task": "0:0:", "back": "/"}
    assert other.client.post(f"/acme/lab/-/comment/{made['id']}/tick", data=data).status_code == 409
    data["body"] = "- [x] Stop"
    assert other.client.post(f"/acme/lab/-/comment/{made['id']}/edit", data=data).status_code == 403
    other.close()


def test_reaction_is_added_and_taken_away(world: World, ada: Browser) -> None:
    number = world.issue()
    made = world.ask(world.bot, "POST", f"/issues/{number}/comments", body="Done.")
    page = ada.get(f"/acme/lab/issues/{number}")
    page = ada.send(page, page.form(f"/comment/{made['id']}/react"), button=("content", "rocket"))
    assert 'aria-label="rocket, 1"' in page.html
    page = ada.send(page, page.form(f"/comment/{made['id']}/react"), button=("content", "rocket"))
    assert 'aria-label="rocket, 1"' not in page.html


def test_labels_and_title_are_changed(world: World, ada: Browser) -> None:
    number = world.issue()
    world.ask(world.ada, "POST", "/labels", name="postdoc", color="b4531f")
    page = ada.get(f"/acme/lab/issues/{number}")
    page = ada.send(page, page.form("/labels"), label=["postdoc"])
    page = ada.send(page, page.form("/title"), title="A better goal")
    issue = world.ask(world.ada, "GET", f"/issues/{number}")
    assert [label["name"] for label in issue["labels"]] == ["postdoc"]
    assert "A better goal" in page.text


def test_bot_is_marked_and_its_hidden_key_is_not_shown(world: World, ada: Browser) -> None:
    number = world.issue()
    world.ask(world.bot, "POST", f"/issues/{number}/comments", body="<!-- postdoc:acme/lab#1/contract -->\nUnderstood.")
    page = ada.get(f"/acme/lab/issues/{number}")
    article = page.html[page.html.index("Understood.") - 2000 : page.html.index("Understood.")]
    assert '<span class="badge">bot</span>' in article
    shown = page.html.replace(page.html[page.html.index("<textarea") : page.html.rindex("</textarea>")], "")
    assert "postdoc:acme/lab#1/contract" not in shown


# Pull requests


def test_conversation_shows_commits_review_and_suggestion_in_order(world: World, ada: Browser) -> None:
    number, head = world.pull()
    world.review(number, head)
    text = ada.get(f"/acme/lab/pull/{number}").text
    places = [text.index(words) for words in ("Runs.", "Add experiments/0001", "Run 01", "Suggested change")]
    assert places == sorted(places)
    assert "- learning_rate: 2.0e-5 + learning_rate: 1.0e-3" in text


def test_issue_address_of_a_pull_request_leads_to_it(world: World, ada: Browser) -> None:
    number, _ = world.pull()
    assert ada.get(f"/acme/lab/issues/{number}").url.endswith(f"/acme/lab/pull/{number}")


def test_accepted_suggestion_becomes_a_commit_by_that_person(world: World, ada: Browser) -> None:
    number, head = world.pull()
    comment = world.review(number, head)
    page = ada.get(f"/acme/lab/pull/{number}")
    after = ada.send(page, page.form(f"/suggestions/{comment}"))
    newest = world.ask(world.ada, "GET", f"/pulls/{number}/commits")[-1]
    assert newest["author"]["login"] == "ada"
    content = world.ask(world.ada, "GET", "/contents/experiments/0001/recipe.yaml?ref=postdoc/0001")["content"]
    assert base64.b64decode(content).decode() == RECIPE.replace("2.0e-5", "1.0e-3")
    assert not [form for form in after.forms if form.action.endswith(f"/suggestions/{comment}")]
    again = ada.send(page, page.form(f"/suggestions/{comment}"))
    assert again.status in (403, 422)
    assert len(world.ask(world.ada, "GET", f"/pulls/{number}/commits")) == 2


def test_suggestion_is_not_for_those_who_may_not_push(world: World, stranger: Browser) -> None:
    number, head = world.pull()
    comment = world.review(number, head)
    assert "Sign in to commit this suggestion" in stranger.get(f"/acme/lab/pull/{number}").text
    other = mallory(world)
    page = other.get(f"/acme/lab/pull/{number}")
    assert "You do not have permission" in page.text
    data = {"csrf": dict(page.forms[0].fields)["csrf"], "back": "/"}
    assert other.client.post(f"/acme/lab/pull/{number}/suggestions/{comment}", data=data).status_code in (403, 422)
    assert world.ask(world.ada, "GET", f"/pulls/{number}")["head"]["sha"] == head
    other.close()


def test_files_page_puts_the_comment_under_its_line(world: World, ada: Browser) -> None:
    number, head = world.pull()
    comment = world.review(number, head)
    html = ada.get(f"/acme/lab/pull/{number}/files").html
    marks = (">learning_rate: 2.0e-5</td>", f'id="discussion_r{comment}"', ">max_length: 64</td>")
    line2, thread, line3 = (html.index(mark) for mark in marks)
    assert line2 < thread < line3


def test_reply_and_comment_on_a_line(world: World, ada: Browser) -> None:
    number, head = world.pull()
    comment = world.review(number, head)
    page = ada.get(f"/acme/lab/pull/{number}/files?path=experiments/0001/recipe.yaml&line=3&side=RIGHT")
    reply, fresh = (form for form in page.forms if form.action.endswith("/review-comments"))
    if dict(reply.fields).get("path"):
        reply, fresh = fresh, reply
    ada.send(page, reply, body="Agreed.")
    ada.send(page, fresh, body="Why 64?")
    found = world.ask(world.ada, "GET", f"/pulls/{number}/comments")
    assert [(c["body"], c.get("in_reply_to_id")) for c in found if c["user"]["login"] == "ada"] == [
        ("Agreed.", comment),
        ("Why 64?", None),
    ]
    assert next(c for c in found if c["body"] == "Why 64?")["line"] == 3


def test_check_shows_its_buttons_only_when_completed(world: World, ada: Browser) -> None:
    number, head = world.pull()
    chart = "```mermaid\nxychart-beta\n title Loss\n line [3, 2, 1]\n```"
    action = {"label": "Accept fix", "description": "Commit it", "identifier": "accept:D1"}
    output = {"title": "step 10/30 · loss 1.31", "summary": "**going** <script>x</script>", "text": chart}
    check = world.check(head, status="in_progress", output=output)
    world.ask(world.bot, "PATCH", f"/check-runs/{check}", actions=[action])
    page = ada.get(f"/acme/lab/pull/{number}/checks")
    assert "step 10/30 · loss 1.31" in page.text
    assert "<strong>going</strong>" in page.html
    assert 'class="mm mm-wide"' in page.html
    assert "Accept fix" not in page.text
    world.ask(world.bot, "PATCH", f"/check-runs/{check}", status="completed", conclusion="failure", actions=[action])
    page = ada.get(f"/acme/lab/runs/{check}")
    assert "Failed" in page.text
    form = page.form("/actions")
    assert form.buttons == [("identifier", "accept:D1", "Accept fix")]
    assert ada.send(page, form, button=("identifier", "accept:D1")).status == 200
    assert ada.send(page, form, button=("identifier", "made-up")).status == 422
    other = mallory(world)
    theirs = other.get(f"/acme/lab/runs/{check}")
    assert other.send(theirs, theirs.form("/actions"), button=("identifier", "accept:D1")).status == 403
    other.close()


def test_merge_box_merges_for_people_with_write_permission(world: World, ada: Browser) -> None:
    number, _ = world.pull()
    page = ada.get(f"/acme/lab/pull/{number}")
    after = ada.send(page, page.form("/merge"))
    assert "Merged" in after.text
    assert world.ask(world.ada, "GET", f"/pulls/{number}")["merged"] is True


def test_merge_at_an_old_head_is_refused_with_a_sentence(world: World, ada: Browser) -> None:
    number, _ = world.pull()
    page = ada.get(f"/acme/lab/pull/{number}")
    world.commit("experiments/0001/more.txt", "x", "postdoc/0001")
    refused = ada.send(page, page.form("/merge"))
    assert refused.status == 409
    assert "Head branch was modified" in refused.text


def test_draft_is_made_ready(world: World, ada: Browser) -> None:
    number, _ = world.pull()
    page = ada.get(f"/acme/lab/pull/{number}")
    page = ada.send(page, next(form for form in page.forms if form.action.endswith("/draft")))
    assert "This is a draft." in page.text
    page = ada.send(page, page.form("/draft"))
    assert "This is a draft." not in page.text
    assert world.ask(world.ada, "GET", f"/pulls/{number}")["draft"] is False


def test_review_of_ones_own_pull_request_is_refused_in_githubs_words(world: World, ada: Browser) -> None:
    number, _ = world.pull()
    page = ada.get(f"/acme/lab/pull/{number}/files")
    after = ada.send(page, page.form("/reviews"), event="APPROVE", body="Fine.")
    assert "approved these changes" in after.text


# Live pages


def test_open_page_costs_nothing_until_something_changes(world: World, ada: Browser) -> None:
    number = world.issue()
    first = ada.get(f"/acme/lab/issues/{number}")
    reply = ada.client.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert (reply.status_code, reply.content) == (304, b"")
    world.ask(world.bot, "POST", f"/issues/{number}/comments", body="News!")
    reply = ada.client.get(first.url, headers={"If-None-Match": reply.headers["etag"]})
    assert reply.status_code == 200
    assert "News!" in reply.text


def test_change_elsewhere_leaves_the_page_as_it_is(world: World, ada: Browser) -> None:
    number, other = world.issue(), world.issue()
    first = ada.get(f"/acme/lab/issues/{number}")
    world.ask(world.ada, "POST", f"/issues/{other}/comments", body="Elsewhere.")
    reply = ada.client.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert reply.status_code == 304
    assert reply.headers["etag"] != first.headers["etag"]


def test_change_made_without_a_request_is_seen_soon(
    world: World, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.practice.pages.live.LONGEST_BLIND_SECONDS", 1e-6)
    number = world.issue()
    first = ada.get(f"/acme/lab/issues/{number}")
    with world.forge.lock:
        world.forge.repository("acme/lab").issues[number].title = "Another title"
    reply = ada.client.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert "Another title" in reply.text


def test_page_of_one_person_is_not_current_for_another(world: World, ada: Browser) -> None:
    number = world.issue()
    tag = ada.get(f"/acme/lab/issues/{number}").headers["etag"]
    other = mallory(world)
    assert other.client.get(f"/acme/lab/issues/{number}", headers={"If-None-Match": tag}).status_code == 200
    other.close()


def test_pages_spend_nobodys_rate_limit(world: World, stranger: Browser) -> None:
    for _ in range(12):
        page: Page = stranger.get("/acme/lab")
        assert page.status == 200
    used = httpx.get(f"{world.url}/api/v3/rate_limit", headers={"User-Agent": "tests"}, trust_env=False).json()
    assert used["resources"]["core"]["used"] == 0


def test_fault_set_for_the_bot_does_not_strike_the_reader(world: World, ada: Browser) -> None:
    world.forge.faults.server_error(count=1)
    assert ada.get("/acme/lab").status == 200
    assert world.bot.get("/issues").status_code == 502


def test_preview_is_rendered_and_safe(ada: Browser) -> None:
    page = ada.get("/acme/lab/issues/new?blank=1")
    csrf = dict(page.forms[0].fields)["csrf"]
    reply = ada.client.post(
        "/-/preview", data={"csrf": csrf, "body": "**x** <script>y</script>", "repository": "acme/lab"}
    )
    assert reply.text.strip() == "<p><strong>x</strong> </p>"


def test_unknown_api_call_is_not_a_page(world: World) -> None:
    reply = httpx.get(f"{world.url}/api/v3/nothing", headers={"User-Agent": "tests"}, trust_env=False)
    assert reply.headers["content-type"].startswith("application/json")
