"""Copies what the training scripts share from sft.py into the others, so that a person edits it once. What only
scripts with rewards share is edited in grpo.py.

    python -m tests.templates.skeleton          # writes templates/scripts/*.py anew
    python -m tests.templates.skeleton --check  # says which file would change; exit code 1 if any

A script is its own part, down to the line "# --- Shared", and below it every shared definition that it needs: those
that it names, and what they name in turn, in the order of sft.py. The tool writes the lower part, and `Keys` in the
upper one. Nothing that a script defines itself is replaced.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "templates" / "scripts"
ORIGINAL = "sft.py"
ORIGINALS = (ORIGINAL, "grpo.py")
"""The second one for what only scripts with rewards share."""
MARK = "# --- Shared"
ABOVE = ("Keys",)
"""Shared definitions that a script needs before its own."""
END = 'if __name__ == "__main__":'
NOT_TRAINING = ("prepare.py", "rewards.py")


@dataclass(frozen=True)
class Definition:
    """One function, class or constant, with its decorators and the string below a constant."""

    name: str
    text: str
    section: str
    """The comment line that heads its part of the file."""
    needs: frozenset[str]


def definitions(source: str) -> list[Definition]:
    """All definitions at the top level, in their order."""
    lines, nodes = source.split("\n"), ast.parse(source).body
    found: list[Definition] = []
    for index, node in enumerate(nodes):
        names = names_of(node)
        if not names:
            continue
        end = node.end_lineno or node.lineno
        after = nodes[index + 1] if index + 1 < len(nodes) else None
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            end = after.end_lineno or end  # a constant's docstring
        begin = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        text = "\n".join(lines[begin - 1 : end])
        section = next((line for line in reversed(lines[: begin - 1]) if line.startswith("# --- ")), "")
        used = frozenset(
            one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)
        )
        found += [Definition(name, text, section, used) for name in names]
    return found


def names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


def shared() -> list[Definition]:
    """What is offered: all below the mark of sft.py, then what grpo.py has there besides, and `Keys`."""
    found: dict[str, Definition] = {}
    for name in ORIGINALS:
        own, _, below = (SCRIPTS / name).read_text().partition(MARK)
        for one in [*(one for one in definitions(own) if one.name in ABOVE), *definitions(MARK + below)]:
            found.setdefault(one.name, one)
    return list(found.values())


def training_scripts() -> list[Path]:
    return [path for path in sorted(SCRIPTS.glob("*.py")) if path.name not in NOT_TRAINING]


def assembled(source: str) -> str:
    """`source` with the shared definitions that it needs, as sft.py has them."""
    offered = {one.name: one for one in shared()}
    own = source.partition(MARK)[0].rstrip("\n")
    for name in ABOVE:
        for one in definitions(own):
            if one.name == name:
                own = own.replace(one.text, offered[name].text)
    mine = definitions(own)
    taken = {one.name for one in mine}
    tail = (SCRIPTS / ORIGINAL).read_text().rpartition(END)
    wanted = set().union(*(one.needs for one in mine), names_in(tail[2]), {"fail"})
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in offered and name not in taken | needed:
            needed.add(name)
            wanted |= offered[name].needs
    below = [one for one in shared() if one.name in needed]
    head = next(line for line in (SCRIPTS / ORIGINAL).read_text().split("\n") if line.startswith(MARK))
    parts, section, after_constant = [own, "\n\n\n", head, "\n"], head, True
    for one in below:
        constant = not one.text.startswith(("def ", "class ", "@"))
        if one.section != section:
            section, after_constant = one.section, False
            parts += ["\n\n", section, "\n"]
        first = parts[-2] == head
        parts += [("\n" if first else "") if constant and after_constant else "\n\n", one.text, "\n"]
        after_constant = constant
    return "".join([*parts, "\n\n", *tail[1:]])


def names_in(text: str) -> set[str]:
    return {one.id for one in ast.walk(ast.parse(f"if True:{text}")) if isinstance(one, ast.Name)}


def main(arguments: list[str]) -> int:
    changed = []
    for path in training_scripts():
        before = path.read_text()
        if path.name == ORIGINAL or MARK not in before:
            continue
        after = assembled(before)
        if after != before:
            changed.append(path.name)
            if "--check" not in arguments:
                path.write_text(after)
    print(", ".join(changed) or "nothing to change")
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
