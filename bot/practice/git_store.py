"""One bare git repository: objects, refs, history and diffs, through git's own plumbing."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .diffs import FileDiff, parse_diff
from .git_process import GitError, Plumbing, run_git

ZERO = "0" * 40
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_OID = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,40}")
# git-check-ref-format(1): no control characters, space ~ ^ : ? * [ \, no "..", no "@{", no "//", no leading "." or "-",
# no component ending in ".lock", no trailing "/" or ".".
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|^-|\.lock(/|$)|[/.]$|^/|^@$|^$")


class RefConflict(Exception):
    """The ref is not where the caller thought it was, or its name collides with another ref's folder."""


class Identity(NamedTuple):
    name: str
    email: str
    when: datetime

    def line(self) -> str:
        offset = self.when.strftime("%z") or "+0000"
        return f"{_clean(self.name) or 'unknown'} <{_clean(self.email)}> {int(self.when.timestamp())} {offset}"


class TreeEntry(NamedTuple):
    mode: str
    type: str
    oid: str


@dataclass(frozen=True, slots=True)
class Commit:
    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Identity
    committer: Identity
    message: str


def valid_ref_name(name: str) -> bool:
    """Whether `name` (with or without its refs/ prefix) may name a ref."""
    return not _BAD_REF.search(name)


class GitStore:
    """Reads are safe from any thread; callers that write hold the forge's lock, refs move by compare-and-swap."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._objects = Plumbing(path, "cat-file", "--batch")
        self._info = Plumbing(path, "cat-file", "--batch-check")
        self._blobs = Plumbing(path, "hash-object", "-w", "-t", "blob", "--no-filters", "--stdin-paths")
        self._commits = Plumbing(path, "hash-object", "-w", "-t", "commit", "--stdin-paths")
        self._trees = Plumbing(path, "mktree", "-z", "--missing", "--batch")
        self._refs = Plumbing(path, "update-ref", "--stdin")
        self._diffs = Plumbing(path, "diff-tree", "--stdin", *_DIFF_OPTIONS)
        self._scratch_lock = threading.Lock()
        self._tree_entries = lru_cache(maxsize=4096)(self._read_tree)
        self.commit = lru_cache(maxsize=4096)(self._read_commit)
        self.diff = lru_cache(maxsize=256)(self._diff)
        self.merge_base = lru_cache(maxsize=1024)(self._merge_base)
        self._merged = lru_cache(maxsize=256)(self._merge_tree)
        self.commits_between = lru_cache(maxsize=1024)(self._commits_between)

    @classmethod
    def create(cls, path: Path, hooks: Path, default_branch: str) -> GitStore:
        """A new bare repository at `path`. Raises: GitError."""
        path.mkdir(parents=True)
        run_git(path, "init", "--quiet", "--bare", "--template=", f"--initial-branch={default_branch}", ".")
        with (path / "config").open("a") as config:
            config.write(_CONFIG.format(hooks=hooks))
        return cls(path)

    def close(self) -> None:
        for process in (self._objects, self._info, self._blobs, self._commits, self._trees, self._refs, self._diffs):
            process.close()

    # Objects

    def read(self, oid: str) -> tuple[str, bytes] | None:
        """(type, content) of an object by its full id, or None."""
        if not _OID.fullmatch(oid):
            return None
        found = self._objects.ask_object(oid.encode() + b"\n")
        return None if found is None else (found[1], found[2])

    def blob(self, oid: str) -> bytes | None:
        found = self.read(oid)
        return found[1] if found and found[0] == "blob" else None

    def type_of(self, oid: str) -> str | None:
        return self._check(oid)[1] if _OID.fullmatch(oid) else None

    def size_of(self, oid: str) -> int:
        parts = self._info.ask_line(oid.encode() + b"\n").split(b" ")
        return int(parts[-1]) if len(parts) == 3 else 0

    def write_blob(self, content: bytes) -> str:
        return self._write(self._blobs, [content])[0]

    def write_blobs(self, contents: Sequence[bytes]) -> list[str]:
        """Several at once: git is asked once, not once for each."""
        return self._write(self._blobs, contents) if contents else []

    def write_tree(self, entries: Mapping[str, TreeEntry]) -> str:
        records = b"".join(f"{e.mode} {e.type} {e.oid}\t{name}".encode() + b"\0" for name, e in entries.items())
        return self._trees.ask_line(records + b"\0").decode()

    def write_commit(
        self, tree: str, parents: Sequence[str], message: str, author: Identity, committer: Identity
    ) -> str:
        """A commit object; no ref moves. Raises: GitError for a message or identity that git does not accept."""
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"author {author.line()}", f"committer {committer.line()}", "", message.replace("\0", "")]
        return self._write(self._commits, ["\n".join(lines).encode()])[0]

    def tree(self, oid: str) -> dict[str, TreeEntry]:
        """The entries of one tree, by name. Raises: GitError when `oid` is not a tree."""
        return dict(self._tree_entries(oid))

    def _read_tree(self, oid: str) -> dict[str, TreeEntry]:
        found = self.read(oid)
        if found is None or found[0] != "tree":
            if oid == EMPTY_TREE:
                return {}
            raise GitError(f"{oid} is not a tree")
        return _parse_tree(found[1])

    def walk(self, tree: str, prefix: str = "") -> list[tuple[str, TreeEntry]]:
        """Every entry below a tree, folders before what they contain."""
        entries: list[tuple[str, TreeEntry]] = []
        for name, entry in self.tree(tree).items():
            entries.append((prefix + name, entry))
            if entry.type == "tree":
                entries += self.walk(entry.oid, f"{prefix}{name}/")
        return entries

    def entry_at(self, tree: str, path: str) -> TreeEntry | None:
        entry = TreeEntry("040000", "tree", tree)
        for part in [part for part in path.split("/") if part]:
            if entry.type != "tree":
                return None
            found = self.tree(entry.oid).get(part)
            if found is None:
                return None
            entry = found
        return entry

    def file_at(self, commit: str, path: str) -> bytes | None:
        entry = self.entry_at(self.commit(commit).tree, path)
        return self.blob(entry.oid) if entry and entry.type == "blob" else None

    def edit_tree(self, tree: str, changes: Mapping[str, TreeEntry | None]) -> str:
        """A tree with `changes` applied; None removes a path. Folders that become empty disappear, as in git."""
        entries = self.tree(tree) if tree != EMPTY_TREE else {}
        below: dict[str, dict[str, TreeEntry | None]] = {}
        for path, entry in changes.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = entry
            elif entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
        for name, inner in below.items():
            old = entries.get(name)
            oid = self.edit_tree(old.oid if old and old.type == "tree" else EMPTY_TREE, inner)
            if oid == EMPTY_TREE:
                entries.pop(name, None)
            else:
                entries[name] = TreeEntry("040000", "tree", oid)
        return self.write_tree(entries) if entries else self.write_tree({})

    # Refs

    def ref(self, name: str) -> str | None:
        """Where a full ref name points, or None."""
        return self._check(name)[0] if name.startswith("refs/") and valid_ref_name(name) else None

    def branch(self, name: str) -> str | None:
        return self.ref(f"refs/heads/{name}")

    def refs(self, prefix: str = "refs/") -> dict[str, str]:
        """All refs whose name starts with `prefix`, sorted."""
        listing = run_git(self.path, "for-each-ref", "--format=%(objectname) %(refname)").decode()
        pairs = [line.split(" ", 1) for line in listing.splitlines()]
        return {name: oid for oid, name in pairs if name.startswith(prefix)}

    def resolve(self, name: str) -> str | None:
        """The commit that a branch, tag, ref or (abbreviated) id names, looked up in that order, or None."""
        if not valid_ref_name(name):
            return None
        for candidate in (f"refs/heads/{name}", f"refs/tags/{name}", name if "/" in name else "", f"refs/{name}"):
            if candidate.startswith("refs/") and (oid := self._check(candidate)[0]):
                return self._peel(oid)
        if name == "HEAD":
            return self._check("HEAD")[0]
        if _ABBREVIATED.fullmatch(name):
            return self._peel(name)
        return None

    def update_ref(self, name: str, new: str | None, old: str | None) -> None:
        """Moves, creates (`old` None) or deletes (`new` None) a ref. Raises: RefConflict when it is not at `old`."""
        if old == ZERO or old is None:
            command = f"create {name} {new}"
        elif new is None:
            command = f"delete {name} {old}"
        else:
            command = f"update {name} {new} {old}"
        try:
            self._refs.ask_lines(f"start\n{command}\ncommit\n".encode(), 2)
        except GitError as error:
            raise RefConflict(name) from error

    # History

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        return self.merge_base(ancestor, descendant) == ancestor

    def first_commits(self, tip: str, limit: int, skip: int = 0, path: str | None = None) -> list[str]:
        """The newest commits reachable from `tip`, those touching `path` only where one is given."""
        extra = ["--", path] if path else []
        listing = run_git(self.path, "rev-list", f"--max-count={limit}", f"--skip={skip}", tip, *extra)
        return listing.decode().split()

    def merge_tree(self, ours: str, theirs: str) -> str | None:
        """The tree of a clean merge, or None when it conflicts (or git is older than 2.38, which cannot say)."""
        return self._merged(ours, theirs)

    def patch_text(self, base: str, head: str, style: str) -> bytes:
        """The media types `diff` and `patch` of a pull request, commit or comparison."""
        if style == "diff":
            return run_git(self.path, "diff-tree", "-r", "-p", "-M", "--no-color", "--src-prefix=a/", base, head)
        return run_git(self.path, "format-patch", "--stdout", "--no-signature", f"{base}..{head}")

    def fetch(self, source: Path, refspec: str) -> None:
        """Brings objects of another repository here (a fork's branch). Raises: GitError."""
        run_git(self.path, "fetch", "--quiet", "--no-tags", "--force", str(source), refspec)

    def _ancestry(self, tip: str, stop: str) -> list[str] | None:
        """The commits from `tip` down to (not including) `stop`, newest first, where that is one short line."""
        found: list[str] = []
        while tip != stop:
            parents = self.commit(tip).parents
            found.append(tip)
            if len(parents) != 1 or len(found) > _SHORT_HISTORY:
                return None
            tip = parents[0]
        return found

    def _merge_base(self, a: str, b: str) -> str | None:
        if a == b or self._ancestry(b, a) is not None:
            return a
        if self._ancestry(a, b) is not None:
            return b
        try:
            return run_git(self.path, "merge-base", a, b).decode().strip() or None
        except GitError:
            return None

    def _merge_tree(self, ours: str, theirs: str) -> str | None:
        if self.is_ancestor(ours, theirs):
            return self.commit(theirs).tree
        try:
            return run_git(self.path, "merge-tree", "--write-tree", ours, theirs).decode().split("\n")[0]
        except GitError:
            return None

    def _commits_between(self, base: str | None, head: str) -> tuple[str, ...]:
        """Commits reachable from `head` and not from `base`, oldest first."""
        line = None if base is None else self._ancestry(head, base)
        if line is not None:
            return tuple(reversed(line))
        span = [head] if base is None else [head, f"^{base}"]
        return tuple(run_git(self.path, "rev-list", "--topo-order", "--reverse", *span).decode().split())

    def _diff(self, base: str, head: str) -> tuple[FileDiff, ...]:
        """What changed between two trees or commits, file by file, with renames found as GitHub finds them."""
        if base == head:
            return ()
        old, new = self._tree_of(base), self._tree_of(head)
        if old == new:
            return ()
        # diff-tree --stdin echoes a line that is no object id, and flushes: that line marks the end of the answer.
        pair, end = f"{old} {new}\n".encode(), f"end of {old}\n".encode()
        return tuple(parse_diff(self._diffs.ask_until(pair + end, end).removeprefix(pair)))

    def _tree_of(self, oid: str) -> str:
        return oid if self.type_of(oid) == "tree" else self.commit(oid).tree

    def _read_commit(self, oid: str) -> Commit:
        found = self.read(oid)
        if found is None or found[0] != "commit":
            raise GitError(f"{oid} is not a commit")
        return _parse_commit(oid, found[1].decode(errors="replace"))

    def _check(self, name: str) -> tuple[str | None, str | None]:
        oid, _, rest = self._info.ask_line(name.encode() + b"\n").decode(errors="replace").partition(" ")
        kind = rest.split(" ")[0]
        return (oid, kind) if kind in ("commit", "tree", "blob", "tag") else (None, None)

    def _peel(self, oid: str) -> str | None:
        found, kind = self._check(f"{oid}^{{commit}}")
        return found if kind == "commit" else None

    def _write(self, process: Plumbing, contents: Sequence[bytes]) -> list[str]:
        # hash-object reads each object from a file named on stdin; the files are written anew each time.
        with self._scratch_lock:
            files = [self.path / f"incoming-object-{index}" for index in range(len(contents))]
            for file, content in zip(files, contents, strict=True):
                _overwrite(file, content)
            named = b"".join(str(file).encode() + b"\n" for file in files)
            return [oid.decode() for oid in process.ask_lines(named, len(files))]


_DIFF_OPTIONS = ("-r", "-z", "-M", "--raw", "--numstat", "-p", "--full-index", "--no-color", "--no-ext-diff")
_SHORT_HISTORY = 300
"""Above so many commits, asking git is quicker than reading them one by one."""
_CONFIG = """\
[core]
	hooksPath = {hooks}
	fsync = none
[gc]
	auto = 0
[receive]
	autogc = false
	advertisePushOptions = false
	hideRefs = refs/pull
	denyDeleteCurrent = refuse
[http]
	receivepack = true
[uploadpack]
	allowReachableSHA1InWant = true
	allowFilter = true
"""
# fsync=none: the practice forge's state dies with its process anyway, and a disk's fsync would cost 4 ms a commit.


def _overwrite(file: Path, content: bytes) -> None:
    # Truncating first and writing then makes ext4 flush the file to disk when it is closed (auto_da_alloc): 2 ms each.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, os.write(descriptor, content))
    finally:
        os.close(descriptor)


def _clean(text: str) -> str:
    return re.sub(r"[<>\x00-\x1f]", "", text).strip()


def _parse_tree(content: bytes) -> dict[str, TreeEntry]:
    entries: dict[str, TreeEntry] = {}
    position = 0
    while position < len(content):
        end = content.index(b"\0", position)
        mode, _, name = content[position:end].partition(b" ")
        oid = content[end + 1 : end + 21].hex()
        kind = {b"40000": "tree", b"160000": "commit"}.get(mode, "blob")
        entries[name.decode(errors="surrogateescape")] = TreeEntry(mode.decode().zfill(6), kind, oid)
        position = end + 21
    return entries


def _parse_commit(oid: str, text: str) -> Commit:
    head, _, message = text.partition("\n\n")
    tree, parents, people = "", [], {}
    for line in head.split("\n"):
        key, _, value = line.partition(" ")
        if key == "tree":
            tree = value
        elif key == "parent":
            parents.append(value)
        elif key in ("author", "committer"):
            people[key] = _parse_identity(value)
    return Commit(oid, tree, tuple(parents), people["author"], people["committer"], message.rstrip("\n"))


def _parse_identity(value: str) -> Identity:
    matched = re.fullmatch(r"(.*?) ?<(.*)> (\d+) ([+-]\d{4})", value)
    if matched is None:
        return Identity(value, "", datetime.fromtimestamp(0, UTC))
    name, email, seconds, _offset = matched.groups()
    return Identity(name, email, datetime.fromtimestamp(int(seconds), UTC))
