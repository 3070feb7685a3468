"""Files on git refs of our own, outside of branches and tags: nobody checks them out, no workflow runs for them.

Each write is a commit on top of the one that was read, and the ref is moved forward only. So of two writers that read
the same commit one succeeds, and the other is told that the ref has moved:
https://docs.github.com/en/rest/git/refs#update-a-reference
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bot.conversation.github.errors import Gone, Refused
from bot.conversation.github.reading import Reader, quoted
from bot.errors import PostdocError, TransientError

if TYPE_CHECKING:
    from bot.conversation.github.client import GitHubApp


class RefMoved(PostdocError):
    """Somebody else has written to the ref since it was read; nothing was written."""


class Refs(Reader):
    """The refs below `refs/<prefix>/`. Every method may raise TransientError, Refused and Gone."""

    def __init__(
        self,
        app: GitHubApp,
        installation_id: int,
        owner: str,
        name: str,
        *,
        prefix: str = "postdoc",
        paced: bool = True,
    ) -> None:
        """Moves that are not `paced` wait for no other write: a few an hour, of which nobody is told."""
        super().__init__(app, installation_id, owner, name)
        self._prefix, self._paced = prefix, paced
        self._writer, self._writes = secrets.token_hex(6), 0
        self._trees: dict[str, str] = {}
        """Commit -> its tree, for commits that were read or made here."""
        self._made: dict[str, set[str]] = {}
        """Name -> commits made here for it. One whose move was not answered may have arrived all the same."""

    async def all(self) -> dict[str, str]:
        """Name below the prefix -> the commit it stands at."""
        # GitHub describes no pages for this list.
        rows = await self._call("GET", f"/git/matching-refs/{self._prefix}/")
        root = f"refs/{self._prefix}/"
        return {row["ref"].removeprefix(root): row["object"]["sha"] for row in rows if row["ref"].startswith(root)}

    async def standing(self, name: str) -> str | None:
        """The commit that the ref stands at; None when there is no such ref. Unchanged, it costs nothing."""
        found = await self._get_or_none(f"/git/ref/{self._prefix}/{quoted(name)}", conditional=True)
        return str(found["object"]["sha"]) if isinstance(found, dict) else None

    async def advance(self, name: str, old: str | None, files: Mapping[str, bytes], message: str) -> str:
        """Put `files` beside (or over) those of `old` and move the ref there; returns its new commit.

        A ref that somebody has deleted is made again. Raises: RefMoved when it stands at another commit than `old`.
        """
        tree = await self._tree(old, files)
        # Two writers with the same words in the same second would otherwise make one and the same commit.
        self._writes += 1
        message = f"{message}\n\nPostdoc-Writer: {self._writer}/{self._writes}"
        commit = await self._call(
            "POST", "/git/commits",
            json={"message": message, "tree": tree, "parents": [old] if old else []}, write=False,
        )  # fmt: skip
        sha = str(commit["sha"])
        self._trees[sha] = tree
        self._made.setdefault(name, set()).add(sha)
        await self._move(name, old, sha)
        self._made[name] = {sha}
        return sha

    def made(self, name: str, sha: str | None) -> bool:
        """Whether the commit is one that was made here for this ref."""
        return sha in self._made.get(name, ())

    async def _tree(self, old: str | None, files: Mapping[str, bytes]) -> str:
        rows = [
            {"path": path, "mode": "100644", "type": "blob", "content": content.decode("utf-8")}
            for path, content in files.items()
        ]
        payload = {"tree": rows} | ({"base_tree": await self._tree_of(old)} if old else {})
        return str((await self._call("POST", "/git/trees", json=payload, write=False))["sha"])

    async def _tree_of(self, sha: str) -> str:
        if sha not in self._trees:
            self._trees[sha] = str((await self._call("GET", f"/git/commits/{sha}"))["tree"]["sha"])
        return self._trees[sha]

    async def _move(self, name: str, old: str | None, new: str) -> None:
        path, ref = f"/git/refs/{self._prefix}/{quoted(name)}", f"refs/{self._prefix}/{name}"
        try:
            if old is not None:
                moved = {"sha": new, "force": False}
                await self._call("PATCH", path, json=moved, write=self._paced)
            else:
                await self._call("POST", "/git/refs", json={"ref": ref, "sha": new}, write=self._paced)
        except Gone:
            raise
        except TransientError:
            if await self.standing(name) != new:  # it may have arrived, and only its answer not
                raise
        except Refused as refused:
            if refused.status not in (404, 409, 422):
                raise
            await self._settle(name, old, new, refused)

    async def _settle(self, name: str, old: str | None, new: str, refused: Refused) -> None:
        """What stands there after a refusal. Raises: RefMoved, or the refusal itself."""
        standing = await self.standing(name)
        if standing == new:
            return
        if standing is None and old is not None:
            # Deleted by a person, who cannot have wanted a goal under way to start anew beside itself.
            await self._move(name, None, new)
            return
        if standing is None or standing == old:
            raise refused
        raise RefMoved(f"refs/{self._prefix}/{name} is at {standing[:12]}, not at {(old or 'nothing')[:12]}")
