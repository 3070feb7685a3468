"""The Hub's list of data sets and the dataset viewer, in their recorded shape, on one server on loopback.

The list filters as the Hub does, so that huggingface_hub's own client can be asked the same and judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.research.stand_in import Answer, Asked, StandIn


@dataclass
class Shown:
    """A data set as the Hub and its viewer show it."""

    tags: tuple[str, ...] = ("license:mit", "language:en", "task_categories:text-generation")
    features: dict[str, str] = field(default_factory=lambda: {"prompt": "string", "completion": "string"})
    rows: int = 5_000
    row: dict[str, Any] = field(default_factory=lambda: {"prompt": "2+2?", "completion": "4"})
    splits: tuple[str, ...] = ("test", "train")
    downloads: int = 1_000
    gated: bool | str = False
    private: bool = False
    description: str = ""
    modified: str = "2026-06-01T00:00:00.000Z"
    viewer: Answer | None = None
    """What the viewer answers instead, to everything."""


class HubStandIn:
    def __init__(self) -> None:
        self.sets: dict[str, Shown] = {}
        self.server = StandIn()
        self.server.answers["/api/datasets"] = self._listed
        for what in ("splits", "first-rows", "rows", "size", "statistics", "parquet"):
            self.server.answers[f"/{what}"] = self._viewed

    @contextmanager
    def serve(self) -> Iterator[HubStandIn]:
        with self.server.serve():
            yield self

    def put(self, name: str, shown: Shown) -> None:
        self.sets[name] = shown
        hidden = Answer({"error": "Invalid username or password."}, status=401)
        self.server.answers[f"/api/datasets/{name}"] = hidden if shown.private else Answer(self._info(name, shown))

    def _info(self, name: str, shown: Shown) -> dict[str, Any]:
        return {
            "_id": "621ffdd236468d709f181d58", "id": name, "author": name.split("/")[0], "sha": "e5" * 20,
            "lastModified": shown.modified, "createdAt": "2024-01-01T00:00:00.000Z", "private": shown.private,
            "gated": shown.gated, "disabled": False, "downloads": shown.downloads, "likes": 3,
            "tags": list(shown.tags), "description": shown.description, "cardData": {},
        }  # fmt: skip

    def _listed(self, asked: Asked) -> Answer:
        wanted = {value for key, value in asked.query if key == "filter"}
        words = [value for key, value in asked.query if key == "search"]
        found = [
            self._info(name, shown) for name, shown in self.sets.items()
            if wanted <= set(shown.tags) and all(word.lower() in name.lower() for word in words)
        ]  # fmt: skip
        if asked.params.get("sort") == "downloads":
            found.sort(key=lambda each: -int(each["downloads"]))
        return Answer(found[: int(asked.params.get("limit", "1000"))])

    def _viewed(self, asked: Asked) -> Answer:
        name = asked.params["dataset"]
        shown = self.sets.get(name)
        if shown is None or shown.private or shown.gated:
            error = "The dataset does not exist, or is not accessible without authentication (private or gated)."
            return Answer({"error": error}, status=401, headers={"X-Error-Code": "ExternalUnauthenticatedError"})
        if shown.viewer is not None:
            return shown.viewer
        made = {
            "/splits": self._splits, "/first-rows": self._rows, "/rows": self._rows, "/size": self._size,
            "/statistics": self._statistics, "/parquet": self._parquet,
        }  # fmt: skip
        return made[asked.path](name, shown, asked)

    def _splits(self, name: str, shown: Shown, _: Asked) -> Answer:
        listed = [{"dataset": name, "config": "default", "split": split} for split in shown.splits]
        return Answer({"splits": listed, "pending": [], "failed": []})

    def _rows(self, name: str, shown: Shown, asked: Asked) -> Answer:
        if asked.params["split"] not in shown.splits:
            return Answer({"error": "Not found."}, status=404, headers={"X-Error-Code": "ResponseNotFound"})
        first, count = int(asked.params.get("offset", "0")), int(asked.params.get("length", "3"))
        features = [
            {"feature_idx": number, "name": column, "type": {"dtype": dtype, "_type": "Value"}}
            for number, (column, dtype) in enumerate(shown.features.items())
        ]
        rows = [{"row_idx": first + n, "row": shown.row, "truncated_cells": []} for n in range(count)]
        answer: dict[str, Any] = {"dataset": name, "config": "default", "split": asked.params["split"]}
        if asked.path == "/rows":
            answer = {"num_rows_total": shown.rows, "num_rows_per_page": 100, "partial": False}
        return Answer(answer | {"features": features, "rows": rows, "truncated": False})

    def _size(self, name: str, shown: Shown, _: Asked) -> Answer:
        one: dict[str, Any] = {
            "num_bytes_parquet_files": 10_000,
            "num_bytes_memory": 20_000,
            "estimated_num_rows": None,
        }
        splits: list[dict[str, Any]] = [
            {"dataset": name, "config": "default", "split": split, "num_columns": len(shown.features),
             "num_rows": shown.rows if split == "train" else 10, **one}
            for split in shown.splits
        ]  # fmt: skip
        whole = {"dataset": name, "num_bytes_original_files": 9, "num_rows": sum(s["num_rows"] for s in splits), **one}
        size = {"dataset": whole, "configs": [], "splits": splits}
        return Answer({"size": size, "pending": [], "failed": [], "partial": False})

    def _statistics(self, name: str, shown: Shown, _: Asked) -> Answer:
        lengths = {"nan_count": 0, "nan_proportion": 0.0, "min": 1, "max": 900, "mean": 80.5, "median": 70, "std": 4}
        found = [
            {"column_name": column, "column_type": "string_text", "column_statistics": lengths}
            for column in shown.features
        ]
        return Answer({"num_examples": shown.rows, "statistics": found, "partial": True})

    def _parquet(self, name: str, shown: Shown, _: Asked) -> Answer:
        base = f"https://huggingface.co/datasets/{name}/resolve/refs%2Fconvert%2Fparquet/default"
        files = [
            {"dataset": name, "config": "default", "split": split, "url": f"{base}/{split}/0000.parquet",
             "filename": "0000.parquet", "size": 5_000}
            for split in shown.splits
        ]  # fmt: skip
        return Answer({"parquet_files": files, "features": None, "pending": [], "failed": [], "partial": False})
