"""Training data from the Hub, from an address and from the repository: over HTTP, by the real bot's process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bot.domain.scripts import PREPARE, data_files
from bot.loop import hub
from tests.fakes.hub import DataSet, FakeHub, Fault
from tests.fakes.rows_server import RowsServer
from tests.world import GOOD, POLICY, RECIPE, REPOSITORY, World, goal_body, practice_world

SECRET = "canary-row-of-a-private-data-set"


def rows(word: str, n: int = 20) -> bytes:
    return "".join(json.dumps({"prompt": f"{word} {i}", "completion": str(i)}) + "\n" for i in range(n)).encode()


@dataclass
class Places:
    world: World
    hub: FakeHub
    web: RowsServer


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("places")
    with FakeHub().serve() as fake, RowsServer(folder).serve() as web:
        policy = f"{POLICY}data:\n  urls: ['{web.url('/sets/')}']\n"
        with practice_world(folder, policy=policy) as world:
            world.environment |= {
                "HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"),
                "HF_TOKEN": "hf_lying_about", "POSTDOC_HUB_TOKEN": "hf_reader", "SSL_CERT_FILE": str(web.authority),
                "POSTDOC_PRIVATE_DATA_HOSTS": f"other.example, {web.host}",
            }  # fmt: skip
            subsets = [{"config_name": name, "data_files": f"{name}/*"} for name in ("en", "fr")]
            table = b"prompt,completion\n1+1,2\n"
            fake.sets = {
                "acme/sums": DataSet({"README.md": b"", "train.csv": table, "test.csv": b"a,b\n"}),
                "acme/private": DataSet({"data/rows.jsonl": rows(SECRET)}, {"license": "mit"}, private=True),
                "acme/gated": DataSet({"rows.jsonl": rows("x")}, gated=True),
                "acme/script": DataSet({"sums.py": b"import os", "data.zip": b"PK"}),
                "acme/pickle": DataSet({"train.pkl": b"cos\nsystem\n", "model.bin": b""}),
                "acme/subsets": DataSet(
                    {"en/train.jsonl": rows("x"), "fr/train.jsonl": rows("y")},
                    {"license": "mit", "configs": subsets},
                ),
                "acme/huge": DataSet({"rows.jsonl": b""}, claims={"rows.jsonl": hub.MOST_BYTES + 1}),
                "acme/bare": DataSet({"rows.jsonl": rows("x")}, {}),
                "acme/flaky": DataSet({"rows.jsonl": rows("flaky")}),
            }  # fmt: skip
            web.files = {"/sets/rows.jsonl": rows("web"), "/out/rows.jsonl": rows("out")}
            world.start()
            world.wait_ready()
            yield Places(world, fake, web)


def built(world: World, issue: int) -> str:
    """What the job's prepare.py makes of the inputs that the goal's data job was given."""
    job = world.first(issue, "data_checked")["job_id"]
    work = world.runner.folder(job)
    command = [sys.executable, PREPARE, "--config", "recipe.yaml", "--inputs", "inputs", "--output", "again"]
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    return (work / "again" / "train.jsonl").read_text()


def test_private_data_set_is_pinned_fetched_with_the_servers_token_and_trained_on(places: Places) -> None:
    world = places.world
    issue = world.open_goal(goal_body(Training_data="https://huggingface.co/datasets/acme/private"))
    assert world.until_ended(issue) == "met"

    read = world.first(issue, "contract_read")
    for path, file in data_files().items():
        assert world.file(read["branch"], f"{read['folder']}/{path}") == file.read_text()

    commit = places.hub.sets["acme/private"].sha
    line = f"hf:acme/private@{commit}"
    assert world.first(issue, "contract_read")["pins"] == {"dataset": line}
    [body] = world.bot_comments(issue)
    assert f"| Training data | `{line}` |" in body
    assert "pinned to that commit" in body
    [pull] = world.pulls()
    folder = "experiments/0001-reverse"
    assert f'data_sources: "{line}"' in world.file(pull["head"]["ref"], f"{folder}/recipe.yaml")
    assert SECRET in built(world, issue)
    assert world.first(issue, "data_checked")["licences"][line]["found"] == "mit"
    # The machine's own token was never used, and ours reached neither a job nor anything that was written.
    assert places.hub.seen_tokens <= {"", "hf_reader"}
    everything = [json.dumps(world.events(issue)), *world.bot_comments(issue), *world.bot_comments(pull["number"])]
    everything += [path.read_text() for path in world.runner.root.glob("*/spec.json")]
    assert not any("hf_reader" in text for text in everything)
    assert not any(SECRET in text for text in everything)


def test_table_of_a_public_data_set_is_read_without_its_test_split(places: Places) -> None:
    world = places.world
    issue = world.open_goal(goal_body(Training_data="hf:acme/sums"))
    world.until_event(issue, "data_checked")

    assert "1+1" in built(world, issue)
    inputs = world.runner.folder(world.first(issue, "data_checked")["job_id"]) / "inputs"
    assert [str(path.relative_to(inputs)) for path in inputs.rglob("*.csv")] == ["hf/acme/sums/train.csv"]
    world.until_ended(issue)


def test_allowed_address_is_pinned_by_its_digest(places: Places) -> None:
    world = places.world
    url = places.web.url("/sets/rows.jsonl")
    issue = world.open_goal(goal_body(Training_data=url, Licence_of_the_data="CC-BY-4.0"))
    world.until_event(issue, "data_checked")
    pinned = world.first(issue, "contract_read")["pins"]["dataset"]
    places.web.files["/sets/rows.jsonl"] = rows("moved")

    assert pinned.startswith(f"{url}@sha256:")
    assert '"web 3"' in built(world, issue)
    assert world.first(issue, "data_checked")["licences"][pinned]["found"] == "cc-by-4.0"
    assert world.until_ended(issue) == "met"


@pytest.mark.slow
def test_hub_that_is_busy_for_a_moment_is_asked_again(places: Places) -> None:
    places.hub.faults = [
        Fault("/api/datasets/acme/flaky", 1, 429, {"Retry-After": "1"}),
        Fault("/resolve/", 1, truncate=11),
    ]
    issue = places.world.open_goal(goal_body(Training_data="hf:acme/flaky"))
    places.world.until_event(issue, "data_checked")

    assert '"flaky 7"' in built(places.world, issue)
    places.world.until_ended(issue)


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"Training_data": "hf:acme/nothing"}, "There is no data set `hf:acme/nothing` on the Hub"),
    ({"Training_data": "hf:acme/sums@v9"}, "has no revision `v9`: write a branch, tag or commit"),
    ({"Training_data": "hf:acme/sums/none"}, "has nothing at that path. It holds `README.md`, `train.csv`"),
    ({"Training_data": "hf:acme/gated"}, "is gated: accept its terms"),
    ({"Training_data": "hf:acme/script"}, "is built by a script, and code from the Hub is never run"),
    ({"Training_data": "hf:acme/pickle"}, "holds only `.bin`, `.pkl`. Rows are read from"),
    ({"Training_data": "hf:acme/subsets"}, "has several subsets (`en`, `fr`): write the folder or file"),
    ({"Training_data": "hf:acme/huge"}, "holds 128 MiB in 1 file; at most 128 MiB"),
    ({"Training_data": "hf:acme"}, "write `hf:owner/name`"),
    ({"Training_data": "http://localhost/x.jsonl"}, "is not an https address"),
    ({"Training_data": "https://10.0.0.1/x.jsonl", "Licence_of_the_data": "mit"}, "lies in none of the places"),
    ({"Training_data": "{out}", "Licence_of_the_data": "mit"}, "lies in none of the places"),
    ({"Training_data": "{none}", "Licence_of_the_data": "mit"}, "answered 404: write the address of a file"),
    ({"Training_data": "{rows}"}, "Licence of the data is empty"),
    ({"Training_data": "{rows}", "Licence_of_the_data": "mine"}, "Licence `mine` is not known"),
    ({"Training_data": "lfs/rows.jsonl"}, "is a Git LFS pointer"),
    ({"Training_data": "data/README.md"}, "holds no .jsonl"),
    ({"Starting_recipe": f"```yaml\n{RECIPE}data_sources: data/other.jsonl\n```"}, "name different data"),
    (
        {"Starting_recipe": f"```yaml\n{RECIPE}data_sources: hf:acme/sums\n```", "Training_data": ""},
        "may change under the recipe",
    ),
]  # fmt: skip


def test_data_that_cannot_be_used_gets_one_sentence_that_says_what_to_write(places: Places) -> None:
    world, web = places.world, places.web
    world.commit("lfs/rows.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    addresses = {"{rows}": "/sets/rows.jsonl", "{none}": "/sets/none.jsonl", "{out}": "/out/rows.jsonl"}
    jobs = len(world.runner.launches())
    opened = []
    for fields, says in REFUSED:
        filled = {key: web.url(addresses[value]) if value in addresses else value for key, value in fields.items()}
        opened.append((world.open_goal(goal_body(**filled)), says))
    for issue, says in opened:
        assert world.until_event(issue, "contract_read")["data"]["goal"] is None, says
        [body] = world.bot_comments(issue)
        assert says in body
        assert "One thing to correct" in body
    assert len(world.runner.launches()) == jobs


@pytest.mark.slow
def test_data_set_without_a_licence_is_refused_and_the_goal_may_say_it(places: Places) -> None:
    world = places.world
    issue = world.open_goal(goal_body(Training_data="hf:acme/bare"))
    world.until_event(issue, "refused")
    assert "`huggingface.co/datasets/acme/bare/README.md`" in world.bot_comments(issue)[0]

    body = goal_body(Training_data="hf:acme/bare", Licence_of_the_data="mit")
    world.api("ada", "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json={"body": body})
    assert world.until_ended(issue) == "met"


def test_somebody_without_permission_makes_the_bot_fetch_nothing(places: Places) -> None:
    world = places.world
    world.forge.add_collaborator(REPOSITORY, "bob", "triage")
    asked = len(places.hub.asked)
    number = world.open_goal(goal_body(Training_data="hf:acme/sums"), login="bob")
    world.until_event(number, "contract_read")
    world.forge.add_collaborator(REPOSITORY, "bob", "write")
    assert "takes `write` permission" in world.bot_comments(number)[0]
    assert len(places.hub.asked) == asked


@pytest.mark.slow
def test_pushed_recipe_may_name_pinned_data_and_no_other(places: Places) -> None:
    world = places.world
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = world.open_goal()
    world.until_event(issue, "run_started")
    branch = f"postdoc/{issue}-reverse"
    path = f"experiments/{issue:04d}-reverse/recipe.yaml"
    text = world.file(branch, path)
    world.commit(path, text.replace("data/train.jsonl", '"hf:acme/sums"'), branch=branch)
    world.runner.release("train-01")
    world.until_event(issue, "head_read")
    pull = world.first(issue, "proposed")["pull_request"]
    assert any("may change under the recipe" in body for body in world.bot_comments(pull))

    line = f"hf:acme/sums@{places.hub.sets['acme/sums'].sha}"
    world.commit(path, text.replace("data/train.jsonl", f'"{line}"'), branch=branch)
    assert line in world.until_event(issue, "data_checked", 2)["data"]["licences"]
    world.comment(pull, "/postdoc stop")
    world.until_ended(issue)
    world.runner.script(GOOD)
