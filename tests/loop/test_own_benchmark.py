"""A team's own benchmark, from the default branch of its repository, over HTTP by the real bot's process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import GOOD, REPOSITORY, World, goal_body, practice_world

EXAMPLE = Path(__file__).resolve().parents[2] / "templates" / "benchmarks"
OWN = """\
description: What our product does.
licence: CC-BY-4.0
dataset: acme/faq
prompt: "Answer: {{question}}"
items:
  file: ours.jsonl
  reference: answer
splits:
  dev: {n: 60}
  sealed: {n: 60}
"""


def item_lines(n: int = 160) -> str:
    return "".join(json.dumps({"question": f"canary item number {i}?", "answer": str(i)}) + "\n" for i in range(n))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with practice_world(tmp_path_factory.mktemp("own")) as found:
        found.commit("benchmarks/ours.yaml", OWN)
        found.commit("benchmarks/ours.jsonl", item_lines())
        found.start()
        found.wait_ready()
        yield found


def test_own_benchmark_is_pinned_and_its_items_reach_evaluations_alone(world: World) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = world.open_goal(goal_body(Benchmark="benchmarks/ours.yaml"))
    world.until_event(issue, "run_started")
    pin = world.first(issue, "contract_read")["pins"]["benchmark"]
    [body] = world.bot_comments(issue)
    assert f"| Benchmark | `benchmarks/ours.yaml` as of commit `{pin['commit'][:7]}" in body
    branch = f"postdoc/{issue}-ours"

    # Neither a later commit of the default branch nor one of the pull request's own branch moves what is measured.
    world.commit("benchmarks/ours.jsonl", item_lines(3))
    world.commit("benchmarks/ours.jsonl", item_lines(5), branch=branch)
    world.kill()
    for path in (world.folder / "data" / "benchmarks").glob("*/*"):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    world.start()
    world.wait_ready()
    world.runner.release("train-01")
    world.until_event(issue, "head_read")
    world.comment(world.first(issue, "proposed")["pull_request"], "/postdoc run")
    assert world.until_ended(issue) == "met"

    given = {path.parent.parent.name: path for path in world.runner.root.glob("*/work/items.jsonl")}
    assert {name.split("-")[-3] for name in given} == {"baseline", "evaluate", "confirm"}
    dev, sealed = (
        {json.loads(line)["prompt"] for line in given[name].read_text().splitlines()}
        for role in ("evaluate", "confirm")
        for name in sorted(given)
        if f"-{role}-02-" in name
    )
    assert len(dev) == len(sealed) == 60
    assert not dev & sealed
    assert all(prompt.startswith("Answer: canary item number ") for prompt in dev | sealed)
    for job in world.runner.root.glob("*-train-*/work"):
        assert not any("canary item" in path.read_text() for path in job.rglob("*") if path.is_file())
    pull = next(pull for pull in world.pulls() if pull["head"]["ref"] == branch)["number"]
    files = world.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{pull}/files?per_page=100")
    ours = [file["filename"] for file in files if file["filename"].startswith("experiments/") and file["additions"]]
    said = [world.file(branch, name) for name in ours] + world.bot_comments(issue) + world.bot_comments(pull)
    assert len(ours) > 8
    assert not any("canary item" in text for text in [*said, json.dumps(world.events(issue))])
    world.commit("benchmarks/ours.jsonl", item_lines())


@pytest.mark.slow
def test_rows_that_hold_its_items_are_found_by_the_scan(world: World) -> None:
    leaked = [
        {
            "prompt": [{"role": "user", "content": f"Answer: canary item number {i}?"}],
            "completion": [{"role": "assistant", "content": str(i)}],
        }
        for i in range(8)
    ]
    world.runner.script(GOOD | {"data-01": {"rows": leaked}})
    issue = world.open_goal(goal_body(Benchmark="benchmarks/ours.yaml"))
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "training rows hold items of the benchmark" in body
    assert "canary" not in body
    world.runner.script(GOOD)


@pytest.mark.slow
def test_example_that_ships_is_a_benchmark(world: World) -> None:
    for file in EXAMPLE.iterdir():
        world.commit(f"evals/{file.name}", file.read_text())
    issue = world.open_goal(goal_body(Benchmark="evals/ours.yaml"))
    found = world.until_event(issue, "contract_read")["data"]
    assert found["goal"]["benchmark"] == "evals/ours.yaml"
    assert "so its values come with wide intervals" in world.bot_comments(issue)[0]
    world.until_ended(issue)


BROKEN = {
    "typo": (OWN.replace("prompt:", "promt:"), "4:1 unknown key promt"),
    "metric": (OWN + "metric: bleu\n", "11:1 metric bleu is not known; write exact_match"),
    "yaml": ("items: [", "is not YAML: 1:9"),
    "bomb": ("a: &a [1]\nb: [*a, *a]\n", "2:5 uses YAML aliases"),
    "split": (OWN.replace("sealed: {n: 60}", "sealed: {n: many}"), "10:12 splits.sealed.n needs a whole number"),
    "regex": (OWN + "extraction:\n  strict: {pattern: '('}\n", "12:12 extraction.strict.pattern is not a regular"),
    "escape": (OWN.replace("ours.jsonl", "../README.md"), "6:3 items.file must lie beside the YAML file"),
    "absent": (OWN.replace("ours.jsonl", "none.jsonl"), "There is no benchmark's items `benchmarks/none.jsonl`"),
    "task": (OWN.replace("file: ours.jsonl", "task: reverse"), "draws its items from a practice task"),
    "column": (OWN.replace("{{question}}", "{{quiz}}"), "needs the column quiz in every item"),
    "large": (OWN + "# " + "x" * 120_000, "at most 100,000 are read"),
    "lfs": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
    "lfsitems": (OWN.replace("ours.jsonl", "lfs.jsonl"), "items `benchmarks/lfs.jsonl` is a Git LFS pointer"),
    "text": (OWN.replace("ours.jsonl", "text.jsonl"), "`text.jsonl` line 1 is not a JSON object"),
    "few": (OWN.replace("ours.jsonl", "one.jsonl"), "has no item for"),
}  # fmt: skip
OTHERS = [
    ({"Benchmark": "benchmarks/none.yaml"}, "There is no benchmark `benchmarks/none.yaml` on the default branch"),
    ({"Benchmark": "benchmarks/link.yaml"}, "is a symlink: write the path of the file itself"),
    ({"Benchmark": "../ours.yaml"}, "leaves its folder"),
    ({"Benchmark": "/etc/ours.yaml"}, "is absolute"),
    ({"Benchmark": "https://example.org/ours.yaml"}, "is an address"),
    ({"Benchmark": "benchmarks/branch.yaml"}, "There is no benchmark `benchmarks/branch.yaml` on the default branch"),
    ({"Benchmark": "benchmarks/ours.yaml", "Training_data": ""}, "has no training split of its own"),
    ({"Benchmark": "benchmarks/ours.yaml", "Training_data": "benchmarks"}, "holds `benchmarks/ours.jsonl`, the bench"),
    ({"Benchmark": "benchmarks/ours.yaml", "Training_data": "benchmarks/ours.jsonl"}, "the benchmark's own items"),
    (
        {"Benchmark": "benchmarks/ours.yaml", "Training_data": "hf:Acme/FAQ"},
        "which the benchmark `benchmarks/ours` takes",
    ),
    ({"Training_data": "data/link.jsonl"}, "is a symlink: write the path of the file itself"),
    ({"Own_script": "data/link.jsonl.py"}, "is not a file on the default branch"),
]


def test_benchmark_that_cannot_be_used_says_where_and_what_to_write(world: World) -> None:
    for name, (text, _) in BROKEN.items():
        world.commit(f"benchmarks/{name}.yaml", text)
    world.commit("benchmarks/lfs.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    world.commit("benchmarks/text.jsonl", "just words\n")
    world.commit("benchmarks/one.jsonl", '{"question": "1?", "answer": "1"}\n')
    link(world, {"benchmarks/link.yaml": "ours.yaml", "data/link.jsonl": "/etc/passwd"})
    head = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/main")["object"]["sha"]
    world.api("ada", "POST", f"/repos/{REPOSITORY}/git/refs", json={"ref": "refs/heads/side", "sha": head})
    world.commit("benchmarks/branch.yaml", OWN, branch="side")
    cases = [({"Benchmark": f"benchmarks/{name}.yaml"}, says) for name, (_, says) in BROKEN.items()] + OTHERS
    opened = [(world.open_goal(goal_body(**fields)), says) for fields, says in cases]
    for issue, says in opened:
        assert world.until_event(issue, "contract_read")["data"]["goal"] is None, says
        [body] = world.bot_comments(issue)
        assert says in body, body
        assert "canary" not in body


def link(world: World, links: dict[str, str]) -> None:
    """Commit symbolic links to the default branch, through the git data API."""
    root = f"/repos/{REPOSITORY}/git"
    head = world.api("ada", "GET", f"{root}/ref/heads/main")["object"]["sha"]
    tree = [{"path": path, "mode": "120000", "type": "blob", "content": to} for path, to in links.items()]
    base = world.api("ada", "GET", f"{root}/commits/{head}")["tree"]["sha"]
    made = world.api("ada", "POST", f"{root}/trees", json={"base_tree": base, "tree": tree})["sha"]
    payload = {"message": "Links", "tree": made, "parents": [head]}
    commit = world.api("ada", "POST", f"{root}/commits", json=payload)["sha"]
    world.api("ada", "PATCH", f"{root}/refs/heads/main", json={"sha": commit})
