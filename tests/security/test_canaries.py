"""Secrets planted everywhere that text comes from; after whole pursuits none of them stands where anybody reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bot.domain.redaction import MARK
from tests import openapi
from tests.security.canaries import CANARIES, FRAME, Canary, forms
from tests.security.sinks import get_paths, sinks
from tests.world import GOOD, RECIPE, SECRET, World, goal_body, practice_world

pytestmark = pytest.mark.skipif(not openapi.available(), reason="npm packages of tests/node are not installed")
PIECE = 16


def planted(*kinds: str, without: tuple[str, ...] = ()) -> list[str]:
    """The texts of these forms (all when none is named) of every canary."""
    return [
        text for name, canary in CANARIES.items() if name not in without
        for form, text, _ in forms(canary) if not kinds or form in kinds
    ]  # fmt: skip


def pieces(canaries: dict[str, Canary]) -> dict[str, str]:
    """Every stretch of `PIECE` characters of every form of every secret -> what it is of."""
    found: dict[str, str] = {}
    for name, canary in canaries.items():
        for form, _, secret in forms(canary):
            for frame in FRAME:
                secret = secret.replace(frame, "\n")
            for part in secret.replace("\\n", "\n").split("\n"):
                found |= {part[at : at + PIECE]: f"{name}, {form}" for at in range(len(part) - PIECE + 1)}
    return found


def swept(world: World, wanted: dict[str, str]) -> list[str]:
    """Where one of the pieces stands."""
    found = set()
    for where, text in sinks(world):
        for at in range(len(text) - PIECE + 1):
            what = wanted.get(text[at : at + PIECE])
            if what is not None:
                found.add(f"{what} in {where}: …{text[max(0, at - 40) : at + 20]!r}")
    return sorted(found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A goal that falls short once and is met, and a second one that breaks the server's own code."""
    with practice_world(tmp_path_factory.mktemp("canaries")) as found:
        found.start()
        assert found.wait_ready(60)
        plain = planted("plain")
        one_line = [text for text in plain if "\n" not in text]
        lines = planted("base64+0", "base64url+1", "unpadded+2", "url", "json", "hex", without=("pem_rsa", "ghs_new"))
        once = planted("base64+0", "base64url+1", "unpadded+2", "url", "hex")  # JSON is put around these again
        log = "\n".join(["training starts", *plain[-8:], *lines[:90], found.environment["POSTDOC_PRIVATE_KEY"], SECRET])
        metrics = [{"step": i, "loss": 6.3 - 0.004 * i, "grad_norm": 2.0, one_line[i % len(one_line)]: i,
                    "note": one_line[i % len(one_line)]} for i in range(1, 101)]  # fmt: skip
        build = {"sources": [{"path": one_line[0], "rows": 200, "sha256": one_line[1]}], "rows": 200,
                 "validation_rows": 1, "dropped": dict.fromkeys(one_line, 1), "columns": {"prompt": one_line[2]},
                 "sha256": one_line[3]}  # fmt: skip
        found.runner.script(
            GOOD
            | {
                "data-01": {"files": {"data/build.json": json.dumps(build)}},
                "train-01": {"curve": "flat", "log": log, "files": {
                    "out/metrics.jsonl": "\n".join(map(json.dumps, metrics)),
                    "out/summary.json": json.dumps({"note": plain, "text": once}),
                    "out/setup.json": json.dumps({"max_steps": 100, "name": plain[0]})}},
                "probe-01": {"suggested": 3e-3, "files": {"out/probe.json": json.dumps(
                    {"steps": 20, "trials": [{"learning_rate": 3e-3, "loss_first": 6.0, "loss_last": one_line[4]}],
                     "suggested": 3e-3, "reason": f"because of {one_line[5]}"})}},
                "evaluate-02": {"value": 0.97, "log": log},
            }
        )  # fmt: skip
        found.commit("data/README.md", "---\nlicense: cc-by-4.0\n---\n# Rows\n" + "\n".join(plain))
        recipe = RECIPE + "".join(f"# {text}\n" for text in one_line[:8])
        body = goal_body(Starting_recipe=f"```yaml\n{recipe}```", Notes="\n".join(plain + lines[:40] + [SECRET]))
        issue = found.open_goal(body, title=f"Raise it with {one_line[0]}")
        found.until_event(issue, "proposed")
        pull = found.pulls()[0]["number"]
        found.comment(
            pull, f"/postdoc status {one_line[1]}\n/postdoc {one_line[2]}\n/postdoc set learning_rate={SECRET}"
        )
        found.comment(pull, "\n".join(plain))
        sha = found.api("ada", "GET", "/repos/acme/speller/git/ref/heads/main")["object"]["sha"]
        for name in (one_line[0], one_line[6]):
            ref = {"ref": f"refs/heads/{name}", "sha": sha}
            found.api("ada", "POST", "/repos/acme/speller/git/refs", json=ref)
        assert found.until_ended(issue, 120) == "met", found.log()
        found.until_event(issue, "command_answered", 3)
        # A second goal whose evaluation cannot even be read: the exception's own words carry secrets.
        words = " ".join(one_line)
        found.runner.script(GOOD | {"baseline-00": {"value": f"{words} {SECRET}"}})
        second = found.open_goal(goal_body(Benchmark="practice/upper"), title="Another")
        found.until_event(second, "crashed")
        found.until_ended(second)
        yield found


def test_no_secret_reaches_a_sink_in_any_form(world: World) -> None:
    known = {"webhook secret": Canary(SECRET), "App's key": Canary(world.environment["POSTDOC_PRIVATE_KEY"])}
    found = swept(world, pieces(CANARIES | known))
    assert found == [], f"{len(found)} leaks: " + "\n".join(found[:20])


def test_what_was_taken_out_is_marked_where_a_person_looks(world: World) -> None:
    """Not because nothing was shown: each of these places had a secret in it."""
    texts: dict[str, str] = {}
    for where, text in sinks(world):
        texts[where.split(" experiments/")[-1]] = texts.get(where.split(" experiments/")[-1], "") + text
    marked = {where for where, text in texts.items() if MARK in text}
    for place in ("goal.yaml", "recipe.yaml", "runs/01/log.txt", "runs/01/run.json", "data/README.md"):
        assert any(where.endswith(place) for where in marked), place
    for place in ("/pulls/2/reviews", "/issues/comments/", "/api/goals/acme/speller/1/events", "server's log"):
        assert any(place in where for where in marked), (place, sorted(marked))


def test_every_view_of_the_server_is_swept() -> None:
    assert set(get_paths()) >= {"/healthz", "/readyz", "/api/goals", "/api/goals/{owner}/{repository}/{issue}/events"}


def test_log_of_the_crash_has_its_traceback_without_the_secret(world: World) -> None:
    log = (world.folder / "bot.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "could not convert string to float" in log
    assert MARK in log


def test_own_script_with_a_secret_in_it_is_refused_instead_of_copied(world: World) -> None:
    world.commit("train/mine.py", f"TOKEN = '{CANARIES['hf'].secret}'\n")
    issue = world.open_goal(goal_body(Training_script="train/mine.py"), title="With my own script")
    world.until_event(issue, "contract_read")
    [body] = world.bot_comments(issue)
    assert "holds what looks like a secret" in body
    assert "train/mine.py" in body


def test_wrong_request_is_not_answered_with_what_it_held(world: World) -> None:
    secret = CANARIES["ghp"].secret
    for answer in (
        httpx.post(f"{world.bot_url}/webhook", content=secret, headers={"X-Hub-Signature-256": SECRET}),
        httpx.get(f"{world.bot_url}/api/goals/acme/{secret}/1/events"),
    ):
        assert secret not in answer.text
        assert SECRET not in answer.text


def test_the_sweep_finds_what_is_there(tmp_path: Path) -> None:
    """A sweep that cannot find would pass for ever."""
    wanted = pieces(CANARIES)
    for name, canary in CANARIES.items():
        for form, text, _ in forms(canary):
            if form.startswith("parted"):
                continue
            assert any(text[at : at + PIECE] in wanted for at in range(len(text))), (name, form)
