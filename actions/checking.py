"""What the bot asks of a run, asked of one by hand: rows and scripts without the benchmark's items, licences that fit,
and weights that descend from the base.

Processes of our own answer, outside of the job's sandbox: no item of the benchmark comes near what is trained or into
the artifact, and what a job wrote is read where it can do nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actions import checkout, evaluating
from actions.child import answer_of, expect_success, postdoc
from actions.recipes import POLICY, RECIPE, Recipe, hub_name, own_scripts, source_files
from actions.request import Request
from actions.workflow_commands import annotate, group
from bot.domain.inert import inert_line
from bot.domain.lineage import Lineage
from bot.errors import PlatformError, UserError

GENERATED = ("out/synthetic.jsonl", "out/kept.jsonl", "out/teacher.jsonl")
"""Rows that a method's script makes for itself and trains on, where a job leaves them."""
LINEAGE, RELATIVES = "bot.evaluation.lineage.child", "bot.loop.relatives_child"
LINEAGE_SECONDS, RELATIVES_SECONDS = 1800, 180
MOST_RELATIVES = 12
_HUB = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""Of the environment, what asking the Hub needs beside the token that it is given."""
TABLES = "fingerprints"
"""Folder of `data-folder` with fingerprints of published models."""
NOT_SCANNED = (
    "No `benchmark` was given, so nothing was scanned and no licence was judged: write what the model is to be "
    "measured on into `benchmark`, and rows and scripts are held against its items before anything is trained."
)
_FAILED = 1
_SHOWN = 400
"""Characters of a sentence that others may have had a hand in."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to."""

    problem: str = ""
    """Why nothing goes on; empty when it does."""
    notes: tuple[str, ...] = ()
    """Sentences for the report, inert."""


# --- What is trained on -----------------------------------------------------------------------------------------------


def own_items_refused(request: Request, recipe: Recipe) -> None:
    """Refuse files of the benchmark as a source of rows: the job that builds them would read what is sealed.

    Raises: UserError.
    """
    held = {checkout.inside(request, "benchmark", name): name for name in evaluating.benchmark_files(request)}
    for source, path in source_files(request, recipe).items() if held else ():
        for each in (Path(path), *Path(path).rglob("*")):
            if (name := held.get(each.resolve())) is not None:
                raise UserError(
                    f"The training data `{source.removeprefix('inputs/')}` holds `{name}`, the benchmark's own items. "
                    "Name other data: a score reached on rows that are asked again would mean nothing."
                )


def data_checked(request: Request, recipe: Recipe, rows: Mapping[str, Path], base: Path) -> Checked:
    """Hold what is trained on against the benchmark. `rows` has `train.jsonl` and perhaps `validation.jsonl`; where the
    policy says `contamination: drop`, they are without what was found afterwards.

    Raises: UserError, PlatformError.
    """
    if not request.benchmark:
        return Checked(notes=(NOT_SCANNED,))
    kept = request.folder / "kept"
    words = ["--scripts", str(_scripts(request, recipe)), "--base", str(base), "--kept", str(kept)]
    if "validation.jsonl" in rows:
        words += ["--validation", str(rows["validation.jsonl"])]
    for source in recipe.sources:
        words += ["--data", source]
    found = _asked(request, rows["train.jsonl"], words, "scan.json")
    for name, path in rows.items():
        if (kept / name).is_file():
            (kept / name).replace(path)
    return found


def generated_checked(request: Request, job: Path) -> Checked:
    """Hold the rows that a training job has made for itself against the benchmark. Raises: UserError, PlatformError."""
    made = next((job / name for name in GENERATED if (job / name).is_file() and not (job / name).is_symlink()), None)
    if made is None or not request.benchmark or not made.stat().st_size:
        return Checked()
    found = _asked(request, made, [], "generated-scan.json")
    return Checked(found.problem, tuple(f"Of the rows that the run made for itself: {each}" for each in found.notes))


def _asked(request: Request, train: Path, more: list[str], report: str) -> Checked:
    target = request.artifact / report
    words = ["check-data", "--train", str(train), "--benchmark", evaluating.benchmark(request)]
    words += ["--seed", str(request.seed), "--json", str(target), *_policy(request), *more]
    with group("check of the data"):
        code = postdoc(words, request.workspace)
    if code != _FAILED or not target.is_file():
        expect_success(code, "the check of the data")
    found = json.loads(target.read_text(encoding="utf-8"))
    problem = str(found["blocked"] or "")
    if problem:
        annotate("error", problem, title="Postdoc train")
    return Checked(problem, tuple(inert_line(str(each), _SHOWN) for each in found["said"]))


def _scripts(request: Request, recipe: Recipe) -> Path:
    """A folder with what the experiment brings of its own, by its names there."""
    folder = request.folder / "scripts"
    for name, content in {
        RECIPE: recipe.text.encode(), **{name: path.read_bytes() for name, path in own_scripts(recipe).items()},
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _policy(request: Request) -> list[str]:
    """The policy's file, which a pull request cannot change for itself; nothing where there is none."""
    commit = checkout.base_commit(request)
    if not commit:
        path = checkout.inside(request, "policy", POLICY)
        return ["--policy", str(path)] if path.is_file() else []
    try:
        content = checkout.base_file(request, commit, POLICY)
    except UserError:
        return []
    target = request.folder / "policy.yml"
    target.write_bytes(content)
    return ["--policy", str(target)]


# --- What came out ----------------------------------------------------------------------------------------------------


def lineage_checked(request: Request, recipe: Recipe, model: Path, base: Path, adapter: Path) -> Checked:
    """Hold the trained weights against the base. Raises: PlatformError, when the process ends without an answer."""
    tables = sorted((Path(request.data_folder) / TABLES).glob("*.json")) if request.data_folder else []
    beside, missing = _published(request, recipe, base)
    trains_adapter = recipe.values.get("use_peft") is True and adapter.is_dir() and not adapter.is_symlink()
    found = answer_of(LINEAGE, {
        "model": str(model), "base": str(base), "published": [str(path) for path in (*tables, *beside)],
        "adapter": str(adapter) if trains_adapter else None, "start": None,
        "from_scratch": recipe.values.get("from_scratch") is True,
        "template_asked": "chat_template_path" in recipe.values, "seconds": LINEAGE_SECONDS,
    })  # fmt: skip
    if found is None:
        raise PlatformError("the check of the model's lineage ended without an answer")
    (request.artifact / "lineage.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if "verdict" not in found:
        why = inert_line(str(found.get("error", "no reason was told")), _SHOWN).rstrip(".")
        return Checked(notes=(f"Lineage not checked: {why}.",))
    return _told(Lineage.from_dict(found), missing)


def _published(request: Request, recipe: Recipe, base: Path) -> tuple[list[Path], list[str]]:
    """(a table of what the Hub has beside and from the base, why that is not all); nothing for a base of this
    machine."""
    if (named := hub_name(request, recipe, base)) is None:
        return [], []
    table = request.folder / "published.json"
    token = os.environ.get("HF_TOKEN") or os.environ.get("POSTDOC_HUB_TOKEN") or ""
    found = answer_of(RELATIVES, {
        "repo": named[0], "revision": named[1], "most": MOST_RELATIVES, "own": [], "token": token,
        "file": str(table), "seconds": RELATIVES_SECONDS,
    }, _HUB)  # fmt: skip
    if found is None or "error" in found:
        problems = [str((found or {}).get("error", f"no answer came in {RELATIVES_SECONDS} s"))]
    else:
        problems = [str(each) for each in found["problems"][:3]]
    return [table] if table.is_file() else [], problems


def _told(found: Lineage, missing: Sequence[str]) -> Checked:
    lines = [f"Lineage: {found.verdict}. {inert_line(found.reason, _SHOWN)}"]
    if found.compared_with:
        lines.append(f"Published models that it was held against: {found.compared_with}.")
    lines += [inert_line(f"Not all published models could be looked at: {why}.", _SHOWN) for why in missing]
    lines += [inert_line(note, _SHOWN) for note in found.notes]
    lines += [
        inert_line(
            f"Changed beside the weights: {change.file}, {change.key}: {change.before or 'nothing'} became "
            f"{change.after or 'nothing'} ({change.consequence}).", _SHOWN,
        )
        for change in found.changes if change.consequence
    ]  # fmt: skip
    if found.verdict.counts:
        return Checked(notes=tuple(lines))
    problem = f"The trained model's result does not count ({found.verdict}): {found.reason}"
    annotate("error", problem, title="Postdoc train")
    return Checked(problem, tuple(lines))
