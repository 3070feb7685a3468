"""The corpus over HTTP: each text where its vector puts it, in whole pursuits, and all that the bot then wrote."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests import openapi
from tests.security.judge import character_problems, markdown_problems, plain_problems
from tests.security.sinks import committed, sent_texts, writes
from tests.world import GOOD, RECIPE, REPOSITORY, World, goal_body, practice_world

pytestmark = pytest.mark.skipif(not openapi.available(), reason="npm packages of tests/node are not installed")
CORPUS = yaml.safe_load((Path(__file__).parent / "corpus" / "injections.yaml").read_text(encoding="utf-8"))
ALLOWED = {
    "POST /app/installations/{}/access_tokens",
    "POST /app/hook/deliveries/{}/attempts",
    f"POST /repos/{REPOSITORY}/issues/{{}}/comments",
    f"PATCH /repos/{REPOSITORY}/issues/comments/{{}}",
    f"POST /repos/{REPOSITORY}/issues/{{}}/reactions",
    f"POST /repos/{REPOSITORY}/issues/comments/{{}}/reactions",
    f"POST /repos/{REPOSITORY}/git/refs",
    f"POST /repos/{REPOSITORY}/pulls",
    f"POST /repos/{REPOSITORY}/pulls/{{}}/reviews",
    f"POST /repos/{REPOSITORY}/check-runs",
    f"PATCH /repos/{REPOSITORY}/check-runs/{{}}",
    "POST /graphql",
}
"""What the bot may write at all. A new kind of write is added here on purpose or not at all."""
MUTATIONS = {"createCommitOnBranch", "markPullRequestReadyForReview"}
MARKDOWN_FIELDS = {"body", "summary", "text"}


def texts(*vectors: str) -> list[str]:
    return [each["text"] for each in CORPUS if each["vector"] in vectors]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One goal with everything in it that is shown later, and many that are refused for what they say."""
    with practice_world(tmp_path_factory.mktemp("injections")) as found:
        found.start()
        assert found.wait_ready(60)
        _branches_and_files(found)
        log = "\n".join(texts("log", "card"))
        metrics = [{"step": i, "loss": 6.3 - 0.004 * i, "grad_norm": 2.0} | dict.fromkeys(texts("metric"), 1.0)
                   for i in range(1, 101)]  # fmt: skip
        build = {"sources": [{"path": text, "rows": 1, "sha256": text} for text in texts("build")], "rows": 200,
                 "validation_rows": 1, "dropped": dict.fromkeys(texts("build", "title"), 3),
                 "columns": {"prompt": texts("build")[0]}, "sha256": texts("build")[1]}  # fmt: skip
        found.runner.script(
            GOOD
            | {
                "data-01": {"files": {"data/build.json": json.dumps(build)}},
                "train-01": {"curve": "flat", "log": log, "files": {
                    "out/metrics.jsonl": "\n".join(map(json.dumps, metrics)),
                    "out/summary.json": json.dumps(dict.fromkeys(texts("log", "title"), "x"))}},
                "probe-01": {"suggested": 3e-3, "files": {"out/probe.json": json.dumps(
                    {"steps": 20, "trials": [{"learning_rate": text, "loss_first": text, "loss_last": 1.0}
                     for text in texts("log")], "suggested": 3e-3, "reason": " ".join(texts("log", "field"))})}},
            }
        )  # fmt: skip
        comments = "".join(f"# {line}\n" for text in texts("recipe_comment") for line in text.split("\n"))
        notes = "\n\n".join(texts("notes", "log"))
        title = " ".join(" ".join(text.split()) for text in texts("title"))[:250]
        body = goal_body(Starting_recipe=f"````yaml\n{RECIPE}{comments}````", Notes=notes)
        main = found.open_goal(body, title=title)
        found.until_event(main, "proposed")
        pull = found.pulls()[0]["number"]
        for text in texts("comment"):
            found.comment(pull, text)
        assert found.until_ended(main, 120) == "met", found.log()
        for issue in _questionable_goals(found):
            # Most are refused; a name that is only a name is accepted, and its goal then runs to its end.
            found.until_event(issue, "contract_read")
            if not found.first(issue, "contract_read")["refusal"]:
                found.until(partial(_settled, found, issue), f"the end of goal {issue}", 120)
        # Three more titles become goals of their own, with a job whose last words are a text of the corpus.
        for number, text in enumerate([t for t in texts("title") if "\n" in t or "<" in t][:3]):
            found.runner.script(GOOD | {"train-01": {"fail": texts("log")[number] + "\n" + texts("log")[number + 9]}})
            issue = found.open_goal(goal_body(Budget_in_runs="1"), title=" ".join(text.split())[:250])
            found.until_ended(issue, 120)
        yield found


def _branches_and_files(world: World) -> None:
    sha = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/main")["object"]["sha"]
    for name in texts("branch"):
        world.api("ada", "POST", f"/repos/{REPOSITORY}/git/refs", json={"ref": f"refs/heads/{name}", "sha": sha})
    for number, text in enumerate(texts("card")):
        world.commit(f"cards/{number}/README.md", f"---\nlicense: {text}\n---\n{text}\n")
        world.commit(f"cards/{number}/train.jsonl", '{"prompt": "a", "completion": "b"}\n')


def _settled(world: World, issue: int) -> bool:
    return any(event["kind"] in ("ended", "refused") for event in world.events(issue))


def _questionable_goals(world: World) -> list[int]:
    """Goals that hold a text where a value belongs."""
    bodies = [goal_body(Starting_recipe=f"````yaml\n{RECIPE}{text}\n````", Budget_in_runs="1")
              for text in texts("recipe")]  # fmt: skip
    fields = ("Base_model", "Benchmark", "Target", "Training_data", "Method", "Licences_allowed", "Training_script")
    wrong = texts("field", "file", "title")
    for start in range(0, len(wrong), len(fields)):
        bodies.append(goal_body(**dict(zip(fields, wrong[start : start + len(fields)], strict=False))))
    bodies += [goal_body(Training_data=f"cards/{number}/train.jsonl") for number in range(len(texts("card")))]
    return [world.open_goal(body, title="A goal that cannot be") for body in bodies]


def test_only_known_kinds_of_writes_were_made(world: World) -> None:
    shapes = {f"{each.method} {re.sub(r'/[0-9]+(?=/|$)', '/{}', each.path)}" for each in writes(world)}
    assert shapes <= ALLOWED
    for each in writes(world):
        if each.path == "/graphql":
            sent = json.loads(each.request)
            assert set(re.findall(r"\b(\w+)\(input:", sent["query"])) <= MUTATIONS
            commit = sent["variables"].get("input")
            if commit is not None:
                assert re.fullmatch(r"postdoc/[0-9]+-[a-z0-9-]+", commit["branch"]["branchName"])
                for change in commit["fileChanges"].get("additions", []) + commit["fileChanges"].get("deletions", []):
                    assert re.fullmatch(r"experiments/[0-9]{4}-[a-z0-9-]+/[A-Za-z0-9_./-]+", change["path"])
                    assert ".." not in change["path"]
        elif each.path.endswith("/reactions"):
            assert json.loads(each.request)["content"] in {"+1", "eyes", "rocket", "confused", "-1"}
        elif each.path.endswith("/git/refs"):
            assert re.fullmatch(r"refs/heads/postdoc/[0-9]+-[a-z0-9-]+", json.loads(each.request)["ref"])


def test_nothing_written_notifies_closes_loads_links_or_commands(world: World) -> None:
    own = frozenset(f"#{number}" for number in range(1, 200))
    found, seen = [], 0
    for each in writes(world):
        for name, text in _fields(json.loads(each.request) if each.request and each.path != "/graphql" else {}):
            seen += 1
            judged = markdown_problems(text, own) if name in MARKDOWN_FIELDS else plain_problems(text)
            found += [f"{each.method} {each.path} {name}: {problem}" for problem in judged]
    assert found == [], "\n".join(found)
    assert seen > 100


def _fields(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, content in value.items():
            yield from _fields(content, str(key))
    elif isinstance(value, list):
        for content in value:
            yield from _fields(content, name)


def test_commits_carry_their_own_trailers_only_and_close_nothing(world: World) -> None:
    messages = [text.decode().partition("\n\n")[2] for _, text in committed(world) if text.startswith(b"tree ")]
    assert len(messages) >= 4
    for message in messages:
        assert list(plain_problems(message)) == [], message
        parsed = subprocess.run(["git", "interpret-trailers", "--parse"], input=message, capture_output=True,
                                text=True, check=True).stdout.splitlines()  # fmt: skip
        assert sorted(line.split(":")[0] for line in parsed) == ["Postdoc-Key", "Postdoc-Run"], message
        assert message.count("Postdoc-Key:") == 1


def test_files_in_commits_show_themselves_and_nothing_else(world: World) -> None:
    own = frozenset(f"#{number}" for number in range(1, 200))
    seen = set()
    for where, content in committed(world):
        path = where.partition(" ")[2]
        if not path.startswith("experiments/") or "." not in path:
            continue
        text = content.decode()
        seen.add(path.rpartition("/")[2])
        assert list(character_problems(text)) == [], where
        if path.endswith(".md"):
            body = text.removeprefix("---\n").partition("\n---\n")[2]
            assert list(markdown_problems(body, own, is_file=True)) == [], where
        if path.endswith(".json"):
            json.loads(text)
        if path.endswith("goal.yaml"):
            assert yaml.safe_load(text)["target"] == 0.9
    assert seen >= {"goal.yaml", "recipe.yaml", "README.md", "run.json", "diagnosis.json", "log.txt"}


def test_commands_were_taken_from_their_lines_alone(world: World) -> None:
    """Quoted, fenced, hidden and look-alike commands ran nothing; nor did what the bot itself said."""
    commands = [event["data"]["verb"] for event in world.events(1) if event["kind"] == "command"]
    assert "stop" not in commands
    assert "nonsense" in commands
    kinds = [event["kind"] for event in world.events(1)]
    assert "stopped" not in kinds
    consents = [event["data"]["by"] for event in world.events(1) if event["kind"] == "consented"]
    assert set(consents) == {"policy"}


def test_issues_stay_open_and_people_keep_their_words(world: World) -> None:
    issues = world.api("ada", "GET", f"/repos/{REPOSITORY}/issues?state=all&per_page=100")
    assert {issue["state"] for issue in issues} == {"open"}
    comments = [c["body"] for c in world.comments(world.pulls()[-1]["number"]) if c["user"]["login"] == "ada"]
    for text in texts("comment"):
        assert any(text.strip() in body.strip() for body in comments), text


def test_spoofed_keys_were_never_taken_for_ours(world: World) -> None:
    """Nobody else's comment was edited, and the sticky comment exists once, written by the App."""
    pull = world.pulls()[-1]["number"]
    edited = {
        int(each.path.rpartition("/")[2])
        for each in writes(world)
        if each.method == "PATCH" and "comments" in each.path
    }
    theirs = {c["id"] for p in world.pulls() for c in world.comments(p["number"]) if c["user"]["login"] == "ada"}
    assert edited & theirs == set()
    sticky = [b for b in world.bot_comments(pull) if b.partition("\n")[0].endswith("/sticky -->")]
    assert len(sticky) <= 1


def test_server_log_holds_no_character_that_a_terminal_obeys(world: World) -> None:
    log = (world.folder / "bot.log").read_text(errors="replace")
    assert list(character_problems(log)) == []


def test_texts_reached_what_was_judged(world: World) -> None:
    """The judged writes do show the corpus: a word of many of its texts stands in them."""
    everything = "\n".join(text for _, text in sent_texts(world)).replace("\u200b", "")
    everything += "\n".join(content.decode("utf-8", "replace") for _, content in committed(world))
    assert sum(word in everything for word in ("evil.example", "approve", "reviewers", "owned", "etc/passwd")) >= 3
