"""Audit of an experiment's scripts: evaluation items written into them, and items aimed at one by one.

A script is the one road around the scan of the rows: it can carry items in its own text, hidden in an encoding or in a
file beside it, and it can name the very items that the model got wrong. Each string, each list of strings, each
comment and each file is read as if it were a training row, plain and decoded.

Not covered: items that are computed, encrypted or fetched (a job has no network), and ids so plain ("17") that they say
nothing.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from bot.data.decoding import decoded_bytes, decoded_texts
from bot.data.detectors import Detectors, ItemLike
from bot.data.rows import Part, Segment
from bot.data.screen import data_of

_RESULTS = "evaluation.json"
# A hash or a UUID, an Airtable record as GPQA has them, or a name with its number: `HumanEval/12`, `mmlu:test:17`.
_TELLING_ID = re.compile(
    r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d)(?:[0-9a-fA-F]{12,}|[0-9a-fA-F-]{36}|rec[A-Za-z0-9]{14}|[\w.-]{3,}[/:#][\w./:#-]+)"
)
_ID_WORD = re.compile(r"[\w./:#-]+")


@dataclass(frozen=True, slots=True)
class ScriptFinding:
    file: str
    line: int
    """1-based; 1 for what concerns the whole file."""
    kind: str
    """`evaluation item`, `evaluation id` (an item aimed at by its name), or `evaluation results` (a script that reads
    what single items came to)."""
    eval_id: str
    """Empty for `evaluation results`."""
    how: str
    """What it was hidden by: "base64, zlib"; empty when it stands there openly."""
    match: str
    """Benchmark text: keep it out of anything public."""

    def sentence(self) -> str:
        """Without any benchmark text."""
        where = f"`{self.file}` line {self.line}"
        hidden = f", hidden by {self.how}" if self.how else ""
        match self.kind:
            case "evaluation item":
                return f"{where} holds the evaluation item `{self.eval_id}`{hidden}."
            case "evaluation id":
                return (
                    f"{where} names the evaluation item `{self.eval_id}`{hidden}: training may not aim at single items."
                )
            case _:
                return f"{where} reads `{_RESULTS}`: training may not look at what single items came to."

    def as_dict(self) -> dict[str, Any]:
        """What may be kept and shown."""
        return {name: value for name, value in asdict(self).items() if name != "match"}


def audit_scripts(files: Mapping[str, bytes], items: Iterable[ItemLike]) -> list[ScriptFinding]:
    """Findings in `files` (name -> content; scripts, and whatever lies beside them), each item once a file.

    No content makes this raise: what is no Python is read as text.
    """
    detectors = Detectors(items)
    names = {name for name in detectors.index.ids if _TELLING_ID.fullmatch(name)}
    found: dict[tuple[str, str, str], ScriptFinding] = {}
    for file, content in sorted(files.items()):
        for each in _findings(file, _pieces(file, content), detectors, names):
            found.setdefault((each.file, each.kind, each.eval_id), each)
    return list(found.values())


class _Piece(NamedTuple):
    line: int
    texts: list[str]
    how: str = ""


def _findings(file: str, pieces: Iterable[_Piece], detectors: Detectors, names: set[str]) -> Iterator[ScriptFinding]:
    held = list(pieces)
    suspects = detectors.suspects([data_of(piece.texts) for piece in held])
    for number, (line, texts, how) in enumerate(held):
        if number in suspects or detectors.code:
            parts = [Segment(Part.PROMPT, text) for text in texts]
            for match in detectors.matches(parts, 0, by_words=number in suspects):
                yield ScriptFinding(file, line, "evaluation item", match.eval_id, how, match.match)
        whole = "\n".join(texts)
        for name in names.intersection(_ID_WORD.findall(whole)) if names else ():
            yield ScriptFinding(file, line, "evaluation id", name, how, name)
        if _RESULTS in whole:
            yield ScriptFinding(file, line, "evaluation results", "", how, _RESULTS)


def _pieces(file: str, content: bytes) -> Iterator[_Piece]:
    """Every text of a file that may hold an item, open and decoded, with the line where it begins."""
    text = content.decode("utf-8", "replace")
    tree = _parsed(text) if file.endswith((".py", ".pyw")) else None
    if tree is None:
        yield _Piece(1, [text])
        yield from (_Piece(1, [found.text], ", ".join(found.by)) for found in decoded_texts(text))
        yield from (_Piece(1, [found.text], ", ".join(found.by)) for found in decoded_bytes(content) if found.by)
        return
    for line, literals in (*_literals(tree), *_comments(text)):
        texts = [one if isinstance(one, str) else one.decode("utf-8", "replace") for one in literals]
        if any(texts):
            yield _Piece(line, texts)
        # Pieces of one encoded text may stand in a list: decoded as one.
        for found in decoded_texts("".join(texts)):
            yield _Piece(line, [found.text], ", ".join(found.by))
        for one in literals:
            if isinstance(one, bytes):
                yield from (_Piece(line, [found.text], ", ".join(found.by)) for found in decoded_bytes(one) if found.by)


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_Literals = Sequence[str | bytes]


def _literals(tree: ast.Module) -> Iterator[tuple[int, _Literals]]:
    """Line and strings of each literal, and of each list, dictionary, sum or call of literals."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() | bytes() as value):
                yield node.lineno, [value]
            case ast.List() | ast.Tuple() | ast.Set() | ast.Dict() | ast.BinOp() | ast.JoinedStr() | ast.Call():
                inside = [
                    each.value
                    for each in _in_order(node)
                    if isinstance(each, ast.Constant) and isinstance(each.value, (str, bytes))
                ]
                if len(inside) > 1:
                    yield node.lineno, inside
                    if isinstance(node, (ast.BinOp, ast.JoinedStr, ast.Call)):
                        yield node.lineno, ["".join(one for one in inside if isinstance(one, str))]
            case _:
                pass


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below in the order of the text; of a dictionary each key before its value."""
    if isinstance(node, ast.Dict):
        children: Iterable[ast.AST | None] = (one for pair in zip(node.keys, node.values, strict=True) for one in pair)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        if child is not None:
            yield child
            yield from _in_order(child)


def _comments(text: str) -> Iterator[tuple[int, _Literals]]:
    """Blocks of comments, each with its first line."""
    block: list[str | bytes] = []
    first = last = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                if block and token.start[0] != last + 1:
                    yield first, ["\n".join(map(str, block))]
                    block = []
                first = first if block else token.start[0]
                block.append(token.string.lstrip("#").strip())
                last = token.start[0]
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass
    if block:
        yield first, ["\n".join(map(str, block))]
