"""Models and data sets in the Hugging Face cache of this machine, which jobs share and none of them can write to.

Only the two folders with content are given to a job: the folder that holds them also holds the user's token
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache, https://huggingface.co/docs/datasets/cache).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bot.errors import UserError


@dataclass(frozen=True, slots=True)
class Shared:
    """Absolute paths, empty where there is no such folder."""

    hub: str = ""
    datasets: str = ""

    def environment(self) -> dict[str, str]:
        return {"HF_HUB_CACHE": self.hub} if self.hub else {}

    def mounts(self, place: str) -> dict[str, str]:
        """Place in the job -> folder on this machine."""
        inside = self.moved_to(place)
        pairs = ((inside.hub, self.hub), (inside.datasets, self.datasets))
        return {where: source for where, source in pairs if source}

    def moved_to(self, place: str) -> Shared:
        """The same, as it looks from inside a job."""
        return Shared(f"{place}/hub" if self.hub else "", f"{place}/datasets" if self.datasets else "")

    def link_datasets(self, scratch: Path, seen_as: str) -> None:
        """Let the job's own cache of data sets hold those of the machine: its own folders, because a step of `map` is
        kept beside the data that it came from, with links to the files."""
        if not self.datasets:
            return
        own = scratch / "huggingface" / "datasets"
        own.mkdir(parents=True)
        # Data sets of the Hub are called OWNER___NAME; `json` and its like are what other jobs read from files.
        for top in Path(self.datasets).glob("*___*"):
            for parent, _, files in os.walk(top):
                inside = os.path.relpath(parent, self.datasets)
                (own / inside).mkdir()
                for name in files:
                    if not name.endswith(".lock"):
                        (own / inside / name).symlink_to(f"{seen_as}/{inside}/{name}")


def shared_cache(folder: Path | None) -> Shared:
    """What jobs may read of a cache: a folder such as `~/.cache/huggingface`, or the `hub` folder in it.

    Raises: UserError when it is neither.
    """
    if folder is None:
        return Shared()
    top = folder.expanduser().resolve()
    if any(top.glob("models--*")) or any(top.glob("datasets--*")):
        return Shared(hub=str(top))
    found = Shared(*(str(top / name) if (top / name).is_dir() else "" for name in ("hub", "datasets")))
    if found == Shared():
        raise UserError(
            f"{folder} is no cache of models and data sets: name the folder that holds `hub` or `datasets`, as "
            "~/.cache/huggingface does"
        )
    return found
