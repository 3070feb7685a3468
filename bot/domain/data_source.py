"""Where training data comes from, as one line: the goal's field Training data, and `data_sources` of a recipe.

    data/train.jsonl                              a file or a folder of the repository
    hf:owner/name[@revision][/path]               a data set of the Hugging Face Hub, or a file or folder of it
    https://host/path/rows.jsonl[@sha256:HEX]     one file at an address

A recipe holds the pinned forms, `@` and a full commit or `@sha256:` and a digest, so that a line names the same rows
for ever. The Hub's own ways of writing a data set are understood too: `hf://datasets/owner/name@revision/path`
(huggingface_hub's file system) and the address of its page, with `/tree/`, `/blob/` or `/resolve/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bot.errors import UserError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Of files that hold rows; `data/prepare.py` reads these and no others."""

_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/(.+)", re.IGNORECASE)
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,119}"
# `refs/convert/parquet` and `refs/pr/3` are the two kinds of revision that hold a slash.
_REVISION = r"refs/convert/[A-Za-z0-9_-]{1,40}|refs/pr/[0-9]{1,7}|[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_HUB = re.compile(rf"({_NAME}/{_NAME})(?:@({_REVISION}))?((?:/{_PART}){{0,15}})/?")
_HUB_PAGE = re.compile(rf"({_NAME}/{_NAME})/?(?:(?:tree|blob|resolve)/({_REVISION})((?:/{_PART}){{0,15}})/?)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"https://([A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?(/[A-Za-z0-9._~%+=:/-]{0,800})")
_PIN = re.compile(r"(.*)@sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class RepositorySource:
    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class HubSource:
    repo: str
    """`owner/name` of a data set."""
    revision: str = ""
    """Branch, tag or commit; empty: the default branch."""
    path: str = ""
    """A file or a folder in it; empty: whatever its card or the names of its files call training rows."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}{'/' if self.path else ''}{self.path}"

    @property
    def pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubSource:
        return replace(self, revision=commit)


@dataclass(frozen=True, slots=True)
class AddressSource:
    url: str
    sha256: str = ""
    """Of the file's bytes; empty: whatever lies there."""

    def __str__(self) -> str:
        return f"{self.url}@sha256:{self.sha256}" if self.sha256 else self.url

    @property
    def pinned(self) -> bool:
        return bool(self.sha256)

    @property
    def host(self) -> str:
        """Name and port as written, in lower case."""
        return self.url.split("/", 3)[2].lower()

    def within(self, prefix: str) -> bool:
        """True when the address is `prefix` or lies below it; a prefix ends at a `/`, whether it is written or not."""
        scheme, _, rest = prefix.partition("://")
        host, _, path = rest.partition("/")
        own_path = self.url.split("/", 3)[3]
        same = scheme.lower() == "https" and _with_port(host.lower()) == _with_port(self.host)
        return same and (path == "" or own_path == path or own_path.startswith(path.rstrip("/") + "/"))


Source = RepositorySource | HubSource | AddressSource


def parse_source(text: str) -> Source:
    """The source that `text` names. The path of a repository's file is not checked further here.

    Raises: UserError with the end of a sentence: what is wrong, and what to write instead.
    """
    text = text.strip()
    lowered = text.lower()
    if page := _PAGE.fullmatch(text):
        return _hub(_HUB_PAGE.fullmatch(re.sub(r"/viewer(?:/.*)?$", "", page[1])))
    if lowered.startswith("hf:"):
        return _hub(_HUB.fullmatch(re.sub(r"^hf:(?://)?(?:datasets/)?", "", text, flags=re.IGNORECASE)))
    if "://" in text or lowered.startswith(("http:", "https:", "www.", "s3:", "gs:")):
        return _address(text)
    return RepositorySource(text.rstrip("/"))


def is_pinned(source: Source) -> bool:
    """True when the line names the same bytes for ever; a path is pinned by the commit that it stands in."""
    return isinstance(source, RepositorySource) or source.pinned


def _hub(match: re.Match[str] | None) -> HubSource:
    example = "write `hf:owner/name`, with `@revision` and `/path/in/it` where needed"
    if match is None:
        raise UserError(f"does not name a data set of the Hub: {example}")
    repo, revision, path = match[1], match[2] or "", (match[3] or "").strip("/")
    if ".." in f"{repo}/{path}" or "--" in repo or path.startswith("."):
        raise UserError(f"does not name a data set of the Hub: {example}")
    return HubSource(repo, revision, path)


def _address(text: str) -> AddressSource:
    url, sha256 = text, ""
    if pin := _PIN.fullmatch(text):
        url, sha256 = pin[1], pin[2]
    if not url.lower().startswith("https://"):
        raise UserError("is not an https address: write one that begins with `https://`, or the path of a file here")
    if "?" in url or "#" in url:
        raise UserError(
            "has a `?` or a `#`: what follows often is a secret, and the line is committed. Write an address without"
        )
    match = _ADDRESS.fullmatch("https://" + url[len("https://") :])
    if match is None:
        raise UserError("is not a plain https address: write `https://host/path/rows.jsonl`, without a login")
    path = match[3]
    parts = path.split("/")
    if "." in parts or ".." in parts or re.search(r"%(?:2e|2f|5c|00|[^0-9a-f]|.[^0-9a-f])|%.?$", path, re.IGNORECASE):
        raise UserError("has `.`, `..` or an encoded `/` in its path: write the plain address")
    if not path.lower().endswith(SUFFIXES):
        raise UserError(f"does not end like a file of rows: write the address of a {', '.join(SUFFIXES)} file")
    return AddressSource("https://" + match[1].lower() + (match[2] or "") + path, sha256)


def _with_port(host: str) -> str:
    return host if ":" in host else f"{host}:443"
