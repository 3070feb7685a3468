"""A run's lineage in a pursuit: what the Hub has beside the base is known; weights of another origin do not count."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.evaluation.lineage.published import fingerprint_of, read_table
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_models import Model
from tests.fakes.weights import CONFIG, HIDDEN, WORDS, random_model, trained, write_model, write_weights
from tests.world import GOOD, ROOT, practice_world

BASE = random_model(0)
INSTRUCT = trained(BASE, 2)
COMMIT = "c" * 40


def on_the_hub(folder: Path, card: dict[str, Any] | None = None, **about: Any) -> Model:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if card is not None:
        files["README.md"] = f"---\n{json.dumps(card)}\n---\n".encode()
    return Model(private=False, files=files, **about)


def fetched(folder: Path) -> None:
    """As if the Hub's client had put the files there, with the notes that it leaves."""
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for path in [each for each in folder.iterdir() if each.is_file()]:
        (notes / f"{path.name}.metadata").write_text(f"{COMMIT}\netag\n{time.time() + 60}\n")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A base, its instruct sibling in two files, a derivative that is gated, a copy of the base, an unrelated one."""
    with FakeHub().serve() as fake:
        models = fake.models.models
        base = write_model(tmp_path / "base", BASE)
        models["acme/tiny-base"] = on_the_hub(base)
        sibling = write_model(tmp_path / "sibling", INSTRUCT)
        (sibling / "model.safetensors").unlink()
        half = list(INSTRUCT)[:9]
        write_weights(sibling / "model-1.safetensors", {name: INSTRUCT[name] for name in half}, "BF16")
        rest = {name: array for name, array in INSTRUCT.items() if name not in half}
        write_weights(sibling / "model-2.safetensors", rest, "BF16")
        index = {name: "model-1.safetensors" if name in half else "model-2.safetensors" for name in INSTRUCT}
        (sibling / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        models["acme/tiny-instruct"] = on_the_hub(sibling)
        closed = write_model(tmp_path / "closed", trained(BASE, 3))
        models["other/closed"] = on_the_hub(closed, {"license": "mit", "base_model": "acme/tiny-base"}, gated=True)
        ours = {"license": "mit", "base_model": "acme/tiny-base", "postdoc_goal": "acme/speller#3"}
        models["acme/own"] = on_the_hub(closed, ours)
        models["other/copy"] = on_the_hub(base, {"license": "mit", "base_model": ["acme/tiny-base"]})
        models["acme/unrelated"] = on_the_hub(write_model(tmp_path / "unrelated", random_model(8)))
        yield fake


def relatives(hub: FakeHub, file: Path, **changes: Any) -> dict[str, Any]:
    request = {
        "repo": "acme/tiny-base",
        "revision": "main",
        "most": 12,
        "own": ["Acme"],
        "token": "",
        "seconds": 60,
        "file": str(file),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bot.loop.relatives_child"], input=json.dumps(request | changes), text=True,
        capture_output=True, check=True, cwd=ROOT,
        env={"PATH": "", "HF_ENDPOINT": hub.url, "HF_HOME": str(file.parent / "hf"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def test_fingerprints_are_taken_of_what_is_published_beside_and_from_a_base(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    assert relatives(hub, file) == {"models": ["acme/tiny-instruct", "other/closed"], "problems": []}
    sibling, closed = read_table(file)
    assert sibling.revision == hub.models.models["acme/tiny-instruct"].sha
    whole = fingerprint_of(write_model(tmp_path / "whole", INSTRUCT, dtype="BF16"), "whole")
    assert [(each.tensor, each.start) for each in sibling.probes] == [
        (each.tensor, each.start) for each in whole.probes
    ]
    assert all((left.values == right.values).all() for left, right in zip(sibling.probes, whole.probes, strict=True))
    assert closed.probes == () and list(closed.files) == ["model.safetensors"]
    assert not any("resolve" in asked and "copy" in asked for asked in hub.asked), "the base's copy is not read"


def test_a_base_that_the_hub_does_not_have_is_said(hub: FakeHub, tmp_path: Path) -> None:
    assert relatives(hub, tmp_path / "table.json", repo="acme/nothing")["error"] == "missing"
    hub.faults = [Fault("/api/models/acme/tiny-instruct", 1, 500)]
    found = relatives(hub, tmp_path / "table.json")
    assert found["models"] == ["other/closed"] and found["problems"] == ["acme/tiny-instruct: busy"]


def test_an_instruct_checkpoint_submitted_as_own_reaches_nothing(hub: FakeHub, tmp_path: Path) -> None:
    """Run 1 is an honest one that falls short; run 2 leaves the base's published sibling and scores 97 %."""
    (tmp_path / "w").mkdir()
    honest = write_model(
        tmp_path / "honest", trained(BASE, 1), files={"generation_config.json": {"eos_token_id": [2, 5]}}
    )
    stolen = write_model(tmp_path / "stolen", INSTRUCT)
    script: dict[str, dict[str, Any]] = {
        "train-01": {"curve": "flat", "model": str(honest)},
        "train-02": {"curve": "good", "model": str(stolen)},
    }
    script |= {f"train-0{n}": {"curve": "good", "model": str(honest)} for n in range(3, 7)}
    script |= {f"evaluate-0{n}": {"value": 0.03} for n in range(3, 7)}
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    hub.models.models["postdoc/tiny-test"] = hub.models.models.pop("acme/tiny-base")
    hub.models.models["postdoc/tiny-test-instruct"] = hub.models.models.pop("acme/tiny-instruct")
    with practice_world(tmp_path / "w", settings=settings) as world:
        world.runner.script(GOOD | script)
        model = tmp_path / "w" / "models" / "postdoc" / "tiny-test"
        (model / "README.md").unlink()
        write_model(model, BASE, files={"config.json": CONFIG | {"vocab_size": WORDS, "hidden_size": HIDDEN}})
        fetched(model)
        world.start()
        assert world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "reviewed", 2)
        first, second = [event["data"] for event in world.events(issue) if event["kind"] == "diagnosed"][:2]
        pull = world.first(issue, "proposed")["pull_request"]
        reviews = [each["body"] for each in world.reviews(pull)]
        plan = next(each["body"] for each in world.pulls() if each["number"] == pull)
        assert first["lineage"]["verdict"] == "descends" and first["score"]["value"] == pytest.approx(0.02, abs=0.01)
        assert second["lineage"]["verdict"] == "another published model"
        assert second["lineage"]["nearest"]["name"] == "postdoc/tiny-test-instruct"
        assert second["score"] is None and second["verdict"] is None
        assert "`eos_token_id`: `2` became `[2, 5]`" in reviews[0] and "`descends`" in reviews[0]
        assert "its result does not count" in reviews[1] and "postdoc/tiny-test-instruct" in reviews[1]
        assert "97" not in reviews[1].split("###")[0]
        assert "`postdoc/tiny-test-instruct`" in plan
        state = world.until_ended(issue)
        assert state != "met" and "confirm" not in " ".join(world.runner.launches())
        folder = world.first(issue, "contract_read")
        run = json.loads(world.file(folder["branch"], f"{folder['folder']}/runs/02/run.json"))
        assert run["lineage"]["verdict"] == "another published model" and run["score"] is None
