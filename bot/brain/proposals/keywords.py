"""Keyword arguments of a script against the signatures of the libraries that it will run with.

Looked at are calls of what the script imports by name, and of attributes of that (`AutoModel.from_pretrained`). Not
covered: positional arguments, methods of objects, and what a library takes through `**kwargs`; two steps of training
find those out.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping

from bot.research.errors import ResearchError
from bot.research.installed import PACKAGES, Installed, Signature


def unknown_keywords(installed: Installed, path: str, text: str) -> list[str]:
    """Arguments that the script passes and the installed libraries do not take, a sentence each. `text` is Python."""
    tree = ast.parse(text)
    names = dict(_imports(tree))
    known: dict[str, Signature | None] = {}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not (called := _called(node.func, names)):
            continue
        if called not in known:
            known[called] = _signature(installed, called)
        signature = known[called]
        if signature is not None and not signature.takes_anything:
            found += [
                _sentence(path, node.lineno, signature, keyword.arg)
                for keyword in node.keywords
                if keyword.arg is not None and signature.parameter(keyword.arg) is None
            ]
    return found


def _signature(installed: Installed, name: str) -> Signature | None:
    try:
        return installed.signature(name)
    except ResearchError:  # a name that only exists once it is imported, or an environment that cannot be asked
        return None


def _sentence(path: str, line: int, signature: Signature, keyword: str) -> str:
    near = difflib.get_close_matches(keyword, [each.name for each in signature.parameters], 1, 0.6)
    instead = f"; it has `{near[0]}`" if near else ""
    return (
        f"`{path}` line {line}: `{signature.name}` of the installed {signature.package} {signature.version} takes no "
        f"`{keyword}`{instead}."
    )


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> what it stands for: `Config` -> `trl.SFTConfig`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in PACKAGES:
                yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in PACKAGES:
                    yield alias.asname or alias.name, alias.name


def _called(function: ast.expr, names: Mapping[str, str]) -> str:
    """The public name of what is called; empty where that is no library's."""
    if isinstance(function, ast.Name):
        return names.get(function.id, "")
    if isinstance(function, ast.Attribute) and (owner := _called(function.value, names)):
        return f"{owner}.{function.attr}"
    return ""
