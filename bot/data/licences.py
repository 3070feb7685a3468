"""Under which licence data and models may be used: read from cards and licence files, and held against what is allowed.

Identifiers are the Hub's: SPDX in lower case (`apache-2.0`), or the Hub's own names for what SPDX lacks (`llama3.1`).

Not covered: whether two licences may be combined, and whether a card tells the truth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bot.data.licence_names import ALIASES, HUB_NAMES, IDENTIFIERS, TEXT_MARKS

# A front matter larger than this is no front matter; the limit also bounds what the YAML reader is given.
_FRONT_MATTER_CHARACTERS = 64 * 1024
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LICENCE_FILE = re.compile(
    r"^(?:(?:UN)?LICEN[CS]E|COPYING)(?:[-_. ](?P<name>[\w.+-]+?))??(?:\.(?:md|txt|rst))?$", re.IGNORECASE
)
_CODE_SUFFIXES = frozenset({".py", ".js", ".ts", ".json", ".yml", ".yaml", ".html", ".sh"})
_CREATIVE_COMMONS_URL = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)")
_LICENCE_TEXT_CHARACTERS = 4_000
_NO_LICENCE = frozenset(
    {"", "unknown", "other", "none", "n/a", "na", "null", "unspecified", "tbd", "todo", "more information needed"}
)


@dataclass(frozen=True, slots=True)
class Licence:
    identifier: str | None
    """Lower case; ` or ` and ` and ` join several. None: nothing that names a licence was found."""
    source: str
    """Where it was read, or where it was looked for."""


@dataclass(frozen=True, slots=True)
class GateResult:
    ok: bool
    reason: str
    """One sentence."""
    advice: str = ""
    """What to write where; empty when ok."""
    cautions: tuple[str, ...] = ()
    """Terms that allow this training and still bind what is done with the result."""


_LONGEST_NAME = 120


def normalise_licence(text: str | None) -> str | None:
    """`Apache License, Version 2.0` -> `apache-2.0`. None for what says nothing; other names pass in lower case."""
    cleaned = " ".join((text or "").strip().strip("\"'").lower().split())
    # It is shown in code spans and tables: no character that could end one.
    cleaned = re.sub(r"[^a-z0-9.+()/:,_ -]", "?", cleaned)[:_LONGEST_NAME]
    if cleaned in _NO_LICENCE:
        return None
    if "://" in cleaned:
        return _of_address(cleaned)
    for joint in (" or ", " and "):
        if joint in cleaned and cleaned not in ALIASES:
            parts = [normalise_licence(part) for part in cleaned.strip("()").split(joint)]
            return joint.join(part for part in parts if part) or None
    hyphenated = re.sub(r"[\s_]+", "-", cleaned)
    if hyphenated in IDENTIFIERS:
        return hyphenated
    plain = re.sub(r"[^a-z0-9.]+", " ", cleaned).strip()
    plain = re.sub(r"\b(?:the|licen[cs]e|version|public|v)\b|\bv(?=\d)", " ", plain)
    plain = " ".join(plain.split())
    if plain.replace(" ", "-") in IDENTIFIERS:
        return plain.replace(" ", "-")
    return ALIASES.get(cleaned) or ALIASES.get(plain) or (hyphenated if hyphenated in HUB_NAMES else cleaned)


def _of_address(address: str) -> str:
    """The licence that a web address stands for; the address itself when it is not known."""
    if match := _CREATIVE_COMMONS_URL.search(address):
        return f"cc-{match[1]}-{match[2].strip('.')}"
    if "creativecommons.org/publicdomain/zero" in address:
        return "cc0-1.0"
    if "apache.org/licenses/license-2.0" in address:
        return "apache-2.0"
    last = address.rstrip("/").rsplit("/", 1)[-1].removesuffix(".html").removesuffix(".txt")
    return last if last in IDENTIFIERS else address


def licence_of_card(text: str) -> str | None:
    """The licence that a dataset's or model's card (README.md) declares in its front matter; None when it has none."""
    match = _FRONT_MATTER.match(text[:_FRONT_MATTER_CHARACTERS])
    if match is None:
        return None
    try:
        front = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(front, dict):
        return None
    declared = front.get("license", front.get("licence"))
    if isinstance(declared, list):
        found = [normalise_licence(entry) for entry in declared if isinstance(entry, str)]
        # One unnamed entry among several leaves the terms unknown.
        return " and ".join(entry for entry in found if entry) if found and all(found) else None
    if isinstance(declared, str) and declared.strip().lower() == "other":
        declared = front.get("license_name")
    return normalise_licence(declared) if isinstance(declared, str) else None


def licence_of_text(text: str) -> str | None:
    """The licence whose wording opens a licence file; None for one that is not known."""
    opening = " ".join(text[:_LICENCE_TEXT_CHARACTERS].lower().split())
    tag = re.search(r"spdx-license-identifier:\s*([a-z0-9.+-]+)", opening)
    if tag:
        return normalise_licence(tag[1])
    return next((name for name, marks in TEXT_MARKS if all(mark in opening for mark in marks)), None)


def find_licence(path: Path, *, root: Path | None = None) -> Licence:
    """The licence of a dataset or model: of the card beside it, of a licence file there, or of a folder further up.

    `path` is a file or a folder; folders are searched up to `root`, or no further than the first without `root`.
    """
    folder = path if path.is_dir() else path.parent
    top = (root or folder).resolve()
    current = folder.resolve()
    while True:
        found = _licence_in(current)
        if found is not None:
            name, file = found
            return Licence(name, str(file.relative_to(top)) if file.is_relative_to(top) else str(file))
        if current == top or top not in current.parents:
            break
        current = current.parent
    card = folder.resolve() / "README.md"
    return Licence(None, str(card.relative_to(top)) if card.is_relative_to(top) else str(card))


def _licence_in(folder: Path) -> tuple[str, Path] | None:
    card = folder / "README.md"
    name = licence_of_card(_opening(card))
    if name:
        return name, card
    try:
        files = sorted(file for file in folder.iterdir() if _is_licence_file(file))
    except OSError:
        return None
    names = {file: licence_of_text(_opening(file)) or _licence_of_file_name(file) for file in files}
    known = {file: name for file, name in names.items() if name}
    if not known or len(known) < len(names):
        return None
    # LICENSE-MIT beside LICENSE-APACHE is how a choice is offered; anything else binds together.
    joint = " or " if all(_licence_of_file_name(file) for file in known) else " and "
    return joint.join(sorted(set(known.values()))), next(iter(known))


def _is_licence_file(file: Path) -> bool:
    return bool(_LICENCE_FILE.match(file.name)) and file.suffix.lower() not in _CODE_SUFFIXES and file.is_file()


def _licence_of_file_name(file: Path) -> str | None:
    match = _LICENCE_FILE.match(file.name)
    name = normalise_licence(match["name"]) if match else None
    return name if name in IDENTIFIERS or name in HUB_NAMES else None


def _opening(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_FRONT_MATTER_CHARACTERS)
    except OSError:
        return ""


def licence_gate(
    found: Licence | str | None,
    allowed: Sequence[str] = (),
    *,
    what: str = "the dataset",
    file: str = "data/README.md",
) -> GateResult:
    """Whether `what` may be trained on. Empty `allowed`: any licence that is known. `file` is where its card lies."""
    if isinstance(found, Licence):
        identifier, place = found.identifier, f" ({found.source})"
    else:
        identifier, place = normalise_licence(found), ""
    wanted = [name for name in map(normalise_licence, allowed) if name]
    if identifier is None:
        return GateResult(False, f"The licence of {what} is not known{place}.", _advice(file, wanted))
    if not _is_known(identifier):
        reason = f"The licence of {what}, `{identifier}`{place}, is not one that Postdoc knows."
        if identifier not in wanted:
            return GateResult(False, reason, _advice(file, wanted, named=identifier))
    cautions = tuple(_cautions(identifier, what))
    if wanted and not _is_allowed(identifier, wanted):
        listed = ", ".join(f"`{name}`" for name in wanted)
        reason = f"The licence of {what} is `{identifier}`{place}; the goal allows {listed} only."
        advice = f"Use data or a model under {listed}, or add `{identifier}` to the goal's allowed licences."
        return GateResult(False, reason, advice, cautions)
    return GateResult(True, f"The licence of {what} is `{identifier}`{place}.", cautions=cautions)


def _advice(file: str, wanted: Sequence[str], named: str | None = None) -> str:
    identifier = wanted[0] if wanted else "apache-2.0"
    line = (
        f"write the line `license: {identifier}` (or whichever is true) between two lines `---` at the top of `{file}`"
    )
    if named is None:
        return f"{line[0].upper()}{line[1:]}."
    return f"If its terms have been read, add `{named}` to the goal's allowed licences; if the name is wrong, {line}."


def _is_known(identifier: str) -> bool:
    return all(part in IDENTIFIERS or part in HUB_NAMES for part in re.split(r" or | and ", identifier))


def _is_allowed(identifier: str, wanted: Sequence[str]) -> bool:
    if identifier in wanted:
        return True
    if " or " in identifier:
        return any(_is_allowed(part, wanted) for part in identifier.split(" or "))
    return all(part in wanted for part in identifier.split(" and "))


def _cautions(identifier: str, what: str) -> list[str]:
    found = []
    for part in re.split(r" or | and ", identifier):
        terms = part.split("-")
        subject = f"`{part}` on {what}"
        if "nc" in terms or HUB_NAMES.get(part) == "non-commercial":
            found.append(f"{subject} forbids commercial use, of the trained model too by a cautious reading.")
        if "nd" in terms:
            found.append(f"{subject} forbids derivatives, and a model trained on it may count as one.")
        if HUB_NAMES.get(part) == "use-restricted":
            found.append(f"{subject} restricts how the model and what derives from it may be used and named.")
        if "sa" in terms or part.startswith(("gpl", "agpl", "lgpl", "odbl", "osl")):
            found.append(f"{subject} asks that what derives from it be shared under the same terms.")
    return found
