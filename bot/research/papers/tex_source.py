"""LaTeX source made ready to be read: one file out of many, comments gone, the author's own macros written out.

Covered: `\\input`, `\\include`, `\\subfile`, `\\import`, `\\iffalse`, the comment package, `\\newcommand`,
`\\renewcommand`, `\\providecommand`, `\\DeclareMathOperator` and simple `\\def`, with and without arguments.
Not covered: what only a TeX engine can do (conditionals on counters, catcodes, macros with delimited arguments).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bot.research.errors import Malformed

MOST_CHARACTERS = 4 << 20
MOST_IN_BRACES = 20_000
MOST_BROKEN = 100
"""Commands whose braces never close; after so many, a text is not looked through for more."""
_INPUT = re.compile(
    r"\\(?:input|include|subfile)\s*(?:\{([^{}]+)\}|([A-Za-z0-9_./-]+))|\\(?:sub)?import\*?\{([^{}]*)\}\{([^{}]+)\}"
)
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*(\n[ \t]*)?")
_VERBATIM = re.compile(r"\\begin\{((?:verbatim|lstlisting|minted|Verbatim)\*?)\}")
_HIDDEN = re.compile(r"\\begin\{(comment)\}")
_DEFINITION = re.compile(
    r"\\(?:(?P<kind>re)?newcommand|providecommand|DeclareRobustCommand|DeclareMathOperator)\*?\s*"
    r"\{?\s*\\(?P<name>[A-Za-z@]+)\s*\}?\s*(?:\[(?P<count>\d)\])?\s*(?:\[(?P<default>[^\]]*)\])?\s*(?=\{)"
)
_DEF = re.compile(r"\\(?:g|e|x)?def\s*\\(?P<name>[A-Za-z@]+)\s*(?P<arguments>(?:#\d)*)\s*(?=\{)")
_CALL = re.compile(r"\\([A-Za-z@]+)\*?")


@dataclass(frozen=True, slots=True)
class Macro:
    count: int
    default: str | None
    body: str


def whole_source(files: Mapping[str, str], source: str) -> str:
    """The main file with everything it includes. Raises: Malformed where no file is one."""
    main = _main_file(files)
    if main is None:
        raise Malformed(f"{source} holds no LaTeX document")
    text = _included(main, files, posixpath.dirname(main), (main,), [MOST_CHARACTERS])
    return written_out(text, macros_of(text))


def _main_file(files: Mapping[str, str]) -> str | None:
    """The file that begins the document; of several the one with a title and the most text."""
    whole = {name: text for name, text in files.items() if re.search(r"\\begin\s*\{document\}", text)}
    if not whole:
        plain = {name: text for name, text in files.items() if re.search(r"\\(?:section|chapter)\b", text)}
        return max(plain, key=lambda name: len(plain[name]), default=None)
    included = {posixpath.splitext(target)[0] for text in files.values() for target in _targets(text)}

    def rank(name: str) -> tuple[bool, bool, int]:
        return (posixpath.splitext(name)[0] not in included, "\\title" in whole[name], len(whole[name]))

    return max(whole, key=rank)


def _targets(text: str) -> Iterator[str]:
    for found in _INPUT.finditer(text):
        yield (found[1] or found[2] or posixpath.join(found[3] or "", found[4] or "")).strip()


def without_comments(text: str) -> str:
    """Comments gone, those in listings excepted."""
    kept: list[str] = []

    def keep(listing: str) -> str:
        kept.append(listing)
        return f"\x01{len(kept) - 1}\x01"

    text = _replaced(text.replace("\x01", ""), _VERBATIM, keep)
    # A comment takes the end of its line and the next line's indentation with it, an empty line still ends a paragraph.
    text = _COMMENT.sub(lambda found: found[1] + ("\n" if found[2] is not None else ""), text)
    text = _without_false(_replaced(text, _HIDDEN, lambda _: ""))
    return re.sub(r"\x01(\d+)\x01", lambda found: kept[int(found[1])], text)


def _replaced(text: str, begin: re.Pattern[str], change: Callable[[str], str]) -> str:
    """Environments that `begin` opens, whole, through `change`; one that never ends is left as it is."""
    pieces, at = [], 0
    endless: set[str] = set()
    for found in begin.finditer(text):
        ending = f"\\end{{{found[1]}}}"
        if found.start() < at or ending in endless:
            continue
        end = text.find(ending, found.end())
        if end < 0:
            endless.add(ending)
            continue
        pieces += [text[at : found.start()], change(text[found.start() : end + len(ending)])]
        at = end + len(ending)
    return "".join([*pieces, text[at:]])


_CONDITION = re.compile(r"\\(iffalse|if[a-zA-Z@]*|else|fi)(?![a-zA-Z@])")


def _without_false(text: str) -> str:
    """What stands between `\\iffalse` and its `\\else` or `\\fi` is gone, conditions inside of it included."""
    pieces, at, depth = [], 0, 0
    for found in _CONDITION.finditer(text):
        if depth == 0 and found[1] == "iffalse":
            pieces.append(text[at : found.start()])
            depth = 1
        elif depth and found[1].startswith("if"):
            depth += 1
        elif depth and (found[1] == "fi" or (depth == 1 and found[1] == "else")):
            depth -= 1
            at = found.end()
    return "".join(pieces) + (text[at:] if not depth else "")


def _included(name: str, files: Mapping[str, str], folder: str, seen: tuple[str, ...], left: list[int]) -> str:
    text = without_comments(files[name])
    left[0] -= len(text)
    if left[0] < 0 or len(seen) > 12:
        return ""

    def replaced(found: re.Match[str]) -> str:
        target = (found[1] or found[2] or posixpath.join(found[3] or "", found[4] or "")).strip()
        for candidate in (
            target,
            f"{target}.tex",
            posixpath.join(folder, target),
            posixpath.join(folder, target + ".tex"),
        ):
            path = posixpath.normpath(candidate)
            if path in files and path not in seen:
                return _included(path, files, folder, (*seen, path), left)
        return ""

    return _INPUT.sub(replaced, text)


def macros_of(text: str) -> dict[str, Macro]:
    """The author's own macros. One that calls itself is left out."""
    found: dict[str, Macro] = {}
    for match, body in commands(text, _DEFINITION):
        inside = f"\\operatorname{{{body}}}" if "DeclareMathOperator" in match[0] else body
        if len(body) < 4_000:
            found[match["name"]] = Macro(int(match["count"] or 0), match["default"], inside)
    for match, body in commands(text, _DEF):
        if len(body) < 4_000:
            found[match["name"]] = Macro(match["arguments"].count("#"), None, body)
    keep = {"section", "subsection", "paragraph", "caption", "label", "begin", "end", "item", "title", "textbf", "emph"}
    return {
        name: macro
        for name, macro in found.items()
        if name not in keep and not re.search(rf"\\{name}(?![A-Za-z])", macro.body)
    }


def commands(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], str]]:
    """Commands that `pattern` finds right before a brace, with what stands in it; none within another."""
    at = broken = 0
    for found in pattern.finditer(text):
        if found.start() < at:
            continue
        inside = group_at(text, found.end())
        if inside is not None:
            at = found.end() + len(inside) + 2
            yield found, inside
        elif (broken := broken + 1) >= MOST_BROKEN:
            return


def group_at(text: str, start: int, opening: str = "{", closing: str = "}") -> str | None:
    """What stands in the braces that open at `start`; None where none open there, or they do not close soon."""
    if start >= len(text) or text[start] != opening:
        return None
    depth, at = 0, start
    end = min(len(text), start + MOST_IN_BRACES)
    while at < end:
        sign = text[at]
        if sign == "\\":
            at += 2
            continue
        if sign == opening:
            depth += 1
        elif sign == closing:
            depth -= 1
            if depth == 0:
                return text[start + 1 : at]
        at += 1
    return None


def written_out(text: str, macros: Mapping[str, Macro]) -> str:
    """The text with macros in place, five deep and never longer than the bound."""
    begin = re.search(r"\\begin\s*\{document\}", text)
    head, body = (text[: begin.start()], text[begin.start() :]) if begin else ("", text)
    body = told_before(head) + _without(_without(body, _DEFINITION), _DEF)
    for _ in range(5):
        expanded = _expanded_once(body, macros)
        if expanded == body:
            break
        body = expanded
    return body


def _without(text: str, pattern: re.Pattern[str]) -> str:
    pieces, at = [], 0
    for found, inside in commands(text, pattern):
        pieces.append(text[at : found.start()])
        at = found.end() + len(inside) + 2
    return "".join([*pieces, text[at:]])


def told_before(head: str) -> str:
    """What a preamble tells: the title, and the abstract in the classes that want it there (acmart, revtex)."""
    found = re.search(r"\\title\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)", head)
    inside = group_at(head, found.end()) if found else None
    begin = head.find(r"\begin{abstract}")
    end = head.find(r"\end{abstract}", begin) if begin >= 0 else -1
    title = f"\\title{{{inside}}}\n" if inside is not None else ""
    return title + (head[begin : end + len(r"\end{abstract}")] + "\n" if end >= 0 else "")


def _expanded_once(text: str, macros: Mapping[str, Macro]) -> str:
    pieces: list[str] = []
    at, size, broken = 0, 0, 0
    for call in _CALL.finditer(text):
        macro = macros.get(call[1])
        if macro is None or call.start() < at:
            continue
        values, end = _arguments(text, call.end(), macro)
        if values is None:
            broken += 1
            if broken > MOST_BROKEN:
                break
            continue
        body = macro.body
        for number, value in enumerate(values, start=1):
            body = body.replace(f"#{number}", value)
        piece = text[at : call.start()] + body
        size += len(piece)
        if size > MOST_CHARACTERS:
            break
        pieces.append(piece)
        # `\name text`: TeX eats the space after a command's name, authors rely on xspace or {} there.
        at = end
    pieces.append(text[at:])
    return "".join(pieces)[: 2 * MOST_CHARACTERS]


def _arguments(text: str, at: int, macro: Macro) -> tuple[list[str] | None, int]:
    values: list[str] = []
    if macro.count and macro.default is not None:
        optional = group_at(text, at, "[", "]")
        values.append(macro.default if optional is None else optional)
        at += 0 if optional is None else len(optional) + 2
    while len(values) < macro.count:
        while at < len(text) and text[at] in " \t":
            at += 1
        inside = group_at(text, at)
        if inside is None:
            return None, at
        values.append(inside)
        at += len(inside) + 2
    if not macro.count and text[at : at + 2] == "{}":
        at += 2
    return values, at
