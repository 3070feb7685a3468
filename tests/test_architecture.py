"""Who may import whom, and what the bot's process never loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)
HEAVY = {"torch", "transformers", "trl", "datasets", "peft", "lm_eval", "accelerate", "ray"}
LOOP_FLOOR = {"domain", "errors", "diagnosis", "evaluation", "data", "research", "conversation", "brain", "loop"}
# Room -> rooms of `bot` it may import from.
ALLOWED = {
    "domain": {"domain", "errors"},
    "errors": set(),
    "diagnosis": {"domain", "errors", "diagnosis"},
    "evaluation": {"domain", "errors", "evaluation"},
    "data": {"domain", "errors", "data"},
    "research": {"domain", "errors", "research"},
    "conversation": {"domain", "errors", "conversation"},
    "brain": {"domain", "errors", "brain", "diagnosis", "evaluation", "data", "research", "conversation"},
    "loop": LOOP_FLOOR,
    "config": {"errors"},
    "drawing": set(),
    # The one name that practice borrows is a folder's: where models are cached.
    "practice": {"practice", "errors", "domain", "evaluation", "drawing"},
}
# Real runs of the shipped scripts are made on the practice base.
ASKS_PRACTICE = {"practice", "gym", "zoo", "cli", "__main__", "doctor"}
READS_CONFIG = {"server", "serverless", "cli", "__main__", "doctor", "config"}


def modules(folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module == "bot":
                yield from (f"bot.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_rooms_of_the_bot_import_only_what_their_floor_may() -> None:
    wrong = []
    for module, path in modules("bot"):
        allowed = ALLOWED.get(room_of(module))
        for imported in imports_of(path):
            if imported.startswith("bot.") and allowed is not None and room_of(imported) not in allowed:
                wrong.append(f"{module} imports {imported}")
            if imported == "bot.config" and room_of(module) not in READS_CONFIG:
                wrong.append(f"{module} reads the settings")
            if imported.startswith("bot.practice") and room_of(module) not in ASKS_PRACTICE:
                wrong.append(f"{module} imports the practice forge")
            if imported.startswith("bot.gym") and room_of(module) not in {"gym", "cli"}:
                wrong.append(f"{module} imports the gym")
    assert wrong == []


def test_domain_imports_the_standard_library_alone() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in [*modules("bot/domain"), ("bot.errors", ROOT / "bot" / "errors.py")]
        for imported in imports_of(path)
        if imported.split(".")[0] not in STANDARD and not imported.startswith(("bot.domain", "bot.errors"))
    ]
    assert wrong == []


def test_columns_stand_alone() -> None:
    """The package goes into experiments as it is: the standard library, and its own modules by relative imports."""
    wrong = [
        f"{module}, line {node.lineno}"
        for module, path in modules("bot/data/columns")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.level > 1)
        or (isinstance(node, ast.ImportFrom) and not node.level and str(node.module).split(".")[0] not in STANDARD)
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] not in STANDARD for alias in node.names))
    ]
    assert wrong == []


def test_nobody_but_the_command_line_knows_the_zoo() -> None:
    """What knows the truth about the traces stays away from what diagnoses them."""
    wrong = [
        f"{module} imports {imported}"
        for folder in ("bot", "runners", "actions")
        for module, path in modules(folder)
        for imported in imports_of(path)
        if imported.startswith("bot.zoo") and room_of(module) not in {"zoo", "cli"}
    ]
    assert wrong == []


def test_runners_know_nothing_of_the_bot_but_errors_and_domain() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules("runners")
        for imported in imports_of(path)
        if imported.startswith("bot.") and room_of(imported) not in {"errors", "domain"}
    ]
    assert wrong == []


def test_actions_import_the_runners_two_rooms_of_the_bot_and_a_light_client() -> None:
    """`pursue`, `respond` and `evaluate` are the `postdoc` command, started as a process."""
    wrong = []
    for module, path in modules("actions"):
        for imported in imports_of(path):
            top = imported.split(".")[0]
            if imported.startswith("bot.") and room_of(imported) not in {"errors", "domain", "diagnosis"}:
                wrong.append(f"{module} imports {imported}")
            if top not in STANDARD | {"bot", "runners", "actions", "yaml", "github", "huggingface_hub"}:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_action_prepares_with_the_standard_library_alone() -> None:
    found = {imported.split(".")[0] for imported in imports_of(ROOT / "actions" / "prepare.py")}
    assert found <= STANDARD


def test_templates_import_nothing_of_ours_and_are_never_imported() -> None:
    ours = {"bot", "runners", "actions", "templates"}
    inside = [
        f"{module} imports {imported}"
        for folder in ("templates", "bot/evaluation/bundle")
        for module, path in modules(folder)
        for imported in imports_of(path)
        if imported.split(".")[0] in ours
    ]
    outside = [
        f"{module} imports {imported}"
        for folder in ("bot", "runners", "actions")
        for module, path in modules(folder)
        for imported in imports_of(path)
        if imported.split(".")[0] == "templates" or imported.startswith("bot.evaluation.bundle")
    ]
    assert inside + outside == []


# Module of the runners -> the client library of its backend. The supervisor starts without site-packages.
CLIENTS = {
    "runners.containers.engine": {"docker"},
    "runners.remote.origins": {"huggingface_hub"},
    "runners.remote.sealing": {"cryptography"},
    "runners.ray_jobs.train": {"ray"},
    "runners.hf_jobs.hub": {"huggingface_hub"},
    # In a job's container:
    "runners.hf_jobs.bootstrap": {"huggingface_hub"},
    "runners.hf_jobs.runs": {"huggingface_hub"},
}


def test_runners_import_no_third_party_library_but_their_backends_client() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, path in modules("runners")
        for imported in imports_of(path)
        if imported.split(".")[0] not in STANDARD | {"bot", "runners"} | CLIENTS.get(module, set())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "entry", ["bot.server.app", "bot.serverless.responder", "bot.cli", "bot.practice.demo", "bot.gym.pursuing"]
)
def test_bot_process_never_loads_the_training_stack(entry: str) -> None:
    code = f"import sys, {entry}; print(sorted(m for m in {sorted(HEAVY)!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
