"""The closed form of a proposal, the rules that it is held against, and the installed signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.brain.playbook import Remedy
from bot.brain.proposals import SCHEMA, Ground, Kind, Proposal, problems_of, read_proposal, unknown_keywords
from bot.brain.proposals.rules import waits_for
from bot.brain.proposals.schema import MOST_FILE, PATCHABLE, Standing
from bot.domain.diagnosis import Symptom
from bot.domain.thought import text_digest
from bot.errors import UserError
from bot.research.installed import Installed
from tests.brain.place import Place, found

SCRIPTS = Path(__file__).resolve().parents[2] / "templates" / "scripts"
TRAIN = (SCRIPTS / "sft.py").read_text()
REASON = "Run 1's loss is flat from step 1 to 100."
WHERE = '"""Supervised fine-tuning with TRL: one recipe in, one model out.'


def place() -> Place:
    """Run 1 is flat, run 2 with another rate is too."""
    made = Place().ran(0.1, found(Symptom.PLATEAU, "learning_rate", 3e-3))
    made.x.runs[0].remedy = Remedy("learning_rate", 0.003, "plateau", "It is flat.").as_dict()
    made.x.recipe = made.x.recipe.replace("0.001", "0.003")
    return made.ran(0.1, found(Symptom.PLATEAU, "max_steps", 200), found(Symptom.OOM))


def standing(made: Place) -> dict[int, Standing]:
    texts = {"train.py": TRAIN, "data/prepare.py": "import json\n"}
    here = Standing(made.x.recipe, made.x.recipe_digests, texts)
    return {0: here, 1: Standing(made.x.runs[0].recipe, made.x.runs[0].digests, texts), 2: here}


def read(made: Place, **arguments: Any) -> Proposal:
    return read_proposal({"kind": "recipe", "reason": REASON, **arguments}, standing(made))


def problems(made: Place, covered: set[str] | None = None, **arguments: Any) -> str:
    ground = Ground(made.x, made.x.run, 3.3e5, {"*"} if covered is None else covered)
    return " ".join(problems_of(ground, read(made, **arguments)))


# --- the form


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "shell"}, "write one of recipe, data, patch, question, nothing"),
        ({"command": "rm -r /"}, 'has no key "command"'),
        ({"settings": {"learning_rate": [1]}}, "`settings.learning_rate` has to be"),
        ({"settings": {"learning_rate": True}}, "not a number"),
        ({"settings": {"output_dir": "/etc"}}, "where a run writes is fixed"),
        ({"settings": {"hub_model_id": "x/y"}}, "published by `/postdoc publish` alone"),
        ({"settings": {"optim": "../../x"}}, "looks like a path"),
        ({"settings": {}}, "needs `settings`"),
        ({"reason": " "}, "`reason` is empty"),
        ({"reason": "x" * 5000}, "characters"),
        ({"base": 7, "settings": {"max_steps": 5}}, "the runs that can be changed are: 1, 2"),
        ({"kind": "patch"}, "needs `files`"),
        ({"kind": "patch", "files": [{"path": ".github/workflows/x.yml", "content": "x"}]}, "write one of"),
        ({"kind": "patch", "files": [{"path": "../train.py", "content": "x"}]}, "write one of"),
        ({"kind": "data", "files": [{"path": "data/columns/turns.py", "content": "x = 1"}]}, "write one of"),
        ({"kind": "patch", "files": [{"path": "trаin.py", "content": "x = 1"}]}, "write one of"),
        ({"kind": "patch", "files": [{"path": "rewards.py", "content": "x = 1"}]}, "no script of this experiment"),
        ({"kind": "patch", "files": [{"path": "train.py", "content": "def (:"}]}, "is no Python, line 1"),
        ({"kind": "patch", "files": [{"path": "train.py", "content": "x = 1\n"}]}, "names the environment"),
        ({"kind": "patch", "files": [{"path": "train.py", "edits": [{"old": "import", "new": "x"}]}]}, "times"),
        ({"kind": "patch", "files": [{"path": "train.py", "edits": [{"old": "nowhere!", "new": "x"}]}]}, "not there"),
        ({"kind": "patch", "files": [{"path": "train.py"}]}, "no draft that differs"),
        ({"kind": "patch", "files": [{"path": "train.py", "content": TRAIN, "mode": "0777"}]}, "has no key"),
        ({"kind": "data", "dataset": "https://evil.example/x?d=1"}, "hf:owner/name"),
        ({"kind": "data", "dataset": "hf:a/../../b"}, "hf:owner/name"),
        ({"kind": "question"}, "needs `question`"),
        ({"kind": "nothing", "settings": {"max_steps": 5}}, "changes nothing"),
        ({"dataset": "hf:a/b", "settings": {"max_steps": 5}}, "kind data alone"),
    ],
)
def test_what_is_not_of_the_form_is_refused_with_what_to_write(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        read(place(), **arguments)
    assert says in str(refused.value), refused.value


def test_the_schema_is_closed_at_every_depth_and_names_the_paths() -> None:
    def objects(node: Any) -> list[Any]:
        if not isinstance(node, dict):
            return []
        below = [each for value in node.values() for each in objects(value)]
        return [node, *below] if node.get("type") == "object" else below

    assert len(objects(SCHEMA)) == 4
    assert all("additionalProperties" in each and each["additionalProperties"] is not True for each in objects(SCHEMA))
    assert SCHEMA["properties"]["files"]["items"]["properties"]["path"]["enum"] == list(PATCHABLE)


def test_a_proposal_comes_back_whole_from_the_journal() -> None:
    edits = [{"old": WHERE, "new": f"{WHERE} Twice."}]
    made = read(place(), kind="patch", label="plateau", files=[{"path": "train.py", "edits": edits}])
    again = Proposal.from_dict(json.loads(json.dumps(made.as_dict() | {"of a newer version": 1})))
    assert again == made and again.digests["train.py"] == text_digest(TRAIN.replace(WHERE, f"{WHERE} Twice."))
    assert again.kind is Kind.PATCH and again.rewritten == {"train.py"}


# --- the rules


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"settings": {"init_from": "runs/01"}}, "the goal's base model"),
        ({"settings": {"method": "dpo"}}, "the method is the goal's"),
        ({"settings": {"seed": 1}}, "what can be compared"),
        ({"settings": {"logging_steps": 500}}, "how a run is watched"),
        ({"settings": {"use_peft": True}}, "whether an adapter or all weights"),
        ({"settings": {"max_length": 64}}, "cuts what is trained on shorter"),
        ({"settings": {"learning_rate": 0.02, "max_steps": 300}}, "Two causes"),
        ({"settings": {"learning_rate": 0.9}}, "outside of what works"),
        ({"settings": {"learning_rate": 0.003}}, "changes nothing"),
        ({"base": 1, "settings": {"learning_rate": 0.003}}, "trained as run 2"),
        ({"label": "overfit", "settings": {"weight_decay": 0.1}}, "the diagnoses of this run are: plateau, oom"),
        ({"label": "oom", "settings": {"per_device_train_batch_size": 16}}, "the batch of an update stays"),
        ({"kind": "data", "settings": {"data_max_rows": 10, "weight_decay": 0.1}}, "Two causes: the data"),
        ({"settings": {"data_max_rows": 10}}, "proposal of kind data"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_reason(arguments: dict[str, Any], says: str) -> None:
    assert says in problems(place(), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"settings": {"max_steps": 300}, "label": "plateau"},
        {"settings": {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}, "label": "oom"},
        {"settings": {"learning_rate": 0.01, "optim": "adafactor"}},
        {"kind": "data", "settings": {"data_deduplicate": False}},
        {"kind": "nothing"},
        {"kind": "question", "question": "May it train an adapter?"},
    ],
)
def test_what_breaks_no_rule_passes(arguments: dict[str, Any]) -> None:
    assert problems(place(), **arguments) == ""


def test_other_data_takes_a_persons_word_unless_it_was_given_or_left_open() -> None:
    made = place()
    asked = {"kind": "data", "settings": {"data_sources": "data/other.jsonl"}}
    assert "needs a person's word" in problems(made, {"max_steps"}, **asked)
    assert problems(made, {"data_sources"}, **asked) == ""
    open_plan = Ground(made.x, None, None, set(), data_is_open=True)
    assert problems_of(open_plan, read(made, **asked)) == []


def test_what_nobody_agreed_to_waits() -> None:
    made = place()
    patch = read(made, kind="patch", files=[{"path": "data/prepare.py", "content": "import csv\n"}])
    assert "data/prepare.py" in waits_for(Ground(made.x, made.x.run, None, {"max_steps"}), patch)
    assert waits_for(Ground(made.x, made.x.run, None, {"data/prepare.py"}), patch) == ""


def test_a_repair_that_failed_is_not_proposed_again_on_another_run() -> None:
    made = Place().ran(0.1, found(Symptom.PLATEAU, "warmup_steps", 0))
    made.x.runs[0].remedy = Remedy("weight_decay", 0.1, "plateau", "No.").as_dict()
    made.x.recipe += "weight_decay: 0.1\n"
    made.ran(0.1, found(Symptom.PLATEAU, "warmup_steps", 0))
    made.x.recipe = made.x.recipe.replace("weight_decay: 0.1\n", "max_steps: 300\n").replace("max_steps: 100\n", "")
    made.ran(0.1, found(Symptom.PLATEAU, "warmup_steps", 0))
    assert "did not help" in problems(made, label="plateau", settings={"weight_decay": 0.1})
    assert problems(made, label="plateau", settings={"weight_decay": 0.2}) == ""


# --- installed signatures


def test_arguments_are_held_against_the_installed_libraries() -> None:
    script = (
        "import trl\nfrom trl import SFTConfig as Config\nfrom peft import LoraConfig\n"
        "Config(max_seq_length=8, learning_rate=1e-3)\ntrl.SFTTrainer(tokenizer=None)\n"
        "LoraConfig(r=8, alpha=16)\nSomething(anything=1)\nConfig(**{})\n"
    )
    said = unknown_keywords(Installed(), "train.py", script)
    assert [each.split("`")[3] for each in said] == ["trl.SFTConfig", "peft.LoraConfig", "trl.SFTTrainer"] or [
        each.split("`")[3] for each in said
    ] == ["trl.SFTConfig", "trl.SFTTrainer", "peft.LoraConfig"]
    assert "it has `max_length`" in said[0] and any("no `tokenizer`" in each for each in said)


def test_a_shipped_script_can_be_rewritten_with_room_to_grow() -> None:
    scripts = Path(__file__).resolve().parents[2] / "templates" / "scripts"
    assert max(len(path.read_text(encoding="utf-8")) for path in scripts.glob("*.py")) < 0.8 * MOST_FILE


@pytest.mark.parametrize("pattern", ["sft*.py", pytest.param("*.py", marks=pytest.mark.slow)])
def test_the_shipped_scripts_pass(pattern: str) -> None:
    installed = Installed()
    assert (
        list(SCRIPTS.glob(pattern))
        and [
            each for path in SCRIPTS.glob(pattern) for each in unknown_keywords(installed, path.name, path.read_text())
        ]
        == []
    )


def test_an_environment_that_cannot_be_asked_is_not_guessed_at(tmp_path: Path) -> None:
    script = "from trl import SFTConfig\nSFTConfig(nonsense=1)"
    assert unknown_keywords(Installed(tmp_path / "python"), "train.py", script) == []
