"""The dataset viewer of the Hugging Face Hub: splits, rows, statistics, sizes and Parquet files of a data set.

Interface and error codes: https://huggingface.co/docs/dataset-viewer/openapi
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bot.research.errors import Busy, Malformed, NotFound, Refused, ResearchError
from bot.research.web import Page, Web

BASE = "https://datasets-server.huggingface.co"
MOST_ROWS = 100
"""Of one `/rows` request, by the interface's own limit."""
MOST_BYTES = 8 << 20
_NOT_READY = frozenset({"ResponseNotReady", "ResponseNotReadyError", "SplitsResponseNotReady"})


@dataclass(frozen=True, slots=True)
class Split:
    config: str
    name: str
    rows: int | None = None
    """None where it is not known."""
    bytes: int | None = None
    """Of its Parquet files."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one split, with the declared type of each column."""

    dataset: str
    config: str
    split: str
    features: Mapping[str, Any]
    """Column -> its type as `datasets` declares it: {"dtype": "string", "_type": "Value"}."""
    rows: tuple[Mapping[str, Any], ...]
    truncated: frozenset[str]
    """Columns with cells that the viewer cut."""
    source: str
    fetched_at: float

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.features)


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    column: str
    kind: str
    """string_text, string_label, int, float, bool, list, ..."""
    values: Mapping[str, Any]
    """nan_count, min, max, mean, frequencies: as the viewer names them."""


@dataclass(frozen=True, slots=True)
class Statistics:
    examples: int
    columns: tuple[ColumnStatistics, ...]
    partial: bool
    """Whether they are of the first part of the split alone."""
    source: str
    fetched_at: float


@dataclass(frozen=True, slots=True)
class ParquetFile:
    config: str
    split: str
    url: str
    filename: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Size:
    rows: int | None
    bytes: int | None
    """Of the Parquet files."""
    splits: tuple[Split, ...]
    partial: bool
    source: str
    fetched_at: float


async def splits(web: Web, dataset: str) -> tuple[Split, ...]:
    """Raises: NotFound, Refused (gated, private, or not shown by the viewer), Busy, Malformed."""
    page = await _asked(web, "splits", dataset)
    found = _list(page, "splits")
    return tuple(Split(_text(page, each, "config"), _text(page, each, "split")) for each in found)


async def first_rows(web: Web, dataset: str, config: str, split: str) -> Rows:
    """Up to 100 rows from the beginning of a split. Raises: as `splits`."""
    return _rows(await _asked(web, "first-rows", dataset, config=config, split=split), dataset, config, split)


async def rows(web: Web, dataset: str, config: str, split: str, *, offset: int, length: int = MOST_ROWS) -> Rows:
    """`length` rows from `offset` on. Raises: as `splits`; ValueError for a length that is out of range."""
    if not 0 < length <= MOST_ROWS or offset < 0:
        raise ValueError(f"from 1 to {MOST_ROWS} rows, from row 0 on")
    asked = {"config": config, "split": split, "offset": str(offset), "length": str(length)}
    return _rows(await _asked(web, "rows", dataset, **asked), dataset, config, split)


async def statistics(web: Web, dataset: str, config: str, split: str) -> Statistics:
    """Raises: as `splits`."""
    page = await _asked(web, "statistics", dataset, config=config, split=split)
    answer = _object(page)
    columns = []
    for each in _list(page, "statistics"):
        values = each.get("column_statistics")
        if not isinstance(values, dict):
            _malformed(page, "column_statistics")
        columns.append(ColumnStatistics(_text(page, each, "column_name"), _text(page, each, "column_type"), values))
    count = _number(page, answer, "num_examples")
    return Statistics(count or 0, tuple(columns), bool(answer.get("partial")), page.url, page.fetched_at)


async def size(web: Web, dataset: str) -> Size:
    """Raises: as `splits`."""
    page = await _asked(web, "size", dataset)
    answer = _object(page)
    sizes = answer.get("size")
    if not isinstance(sizes, dict) or not isinstance(sizes.get("dataset"), dict):
        _malformed(page, "size.dataset")
    whole = sizes["dataset"]
    found = tuple(
        Split(_text(page, each, "config"), _text(page, each, "split"), _count(page, each),
              _number(page, each, "num_bytes_parquet_files"))
        for each in _objects(page, sizes.get("splits"), "size.splits")
    )  # fmt: skip
    rows_of_all, taken = _count(page, whole), _number(page, whole, "num_bytes_parquet_files")
    return Size(rows_of_all, taken, found, bool(answer.get("partial")), page.url, page.fetched_at)


async def parquet_files(web: Web, dataset: str) -> tuple[ParquetFile, ...]:
    """Raises: as `splits`."""
    page = await _asked(web, "parquet", dataset)
    return tuple(
        ParquetFile(
            _text(page, each, "config"), _text(page, each, "split"), _text(page, each, "url"),
            _text(page, each, "filename"), _number(page, each, "size") or 0,
        )
        for each in _list(page, "parquet_files")
    )  # fmt: skip


async def _asked(web: Web, what: str, dataset: str, **params: str) -> Page:
    try:
        return await web.get(f"{BASE}/{what}", params={"dataset": dataset, **params}, most_bytes=MOST_BYTES)
    except ResearchError as error:
        raise _explained(error, dataset) from error


def _explained(error: ResearchError, dataset: str) -> ResearchError:
    """The viewer's refusals in the words of whoever asked for a data set."""
    name, status, code = f"`{dataset}`", error.status, error.code
    if status in (401, 403) or code in ("ExternalUnauthenticatedError", "ExternalAuthenticatedError"):
        return Refused(
            f"The data set {name} does not exist, is private, or is gated: the viewer shows it to nobody without an "
            "accepted account.", status=status, code=code,
        )  # fmt: skip
    if status == 404:
        return NotFound(f"The dataset viewer knows no {name} with this subset and split.", status=status, code=code)
    if code in _NOT_READY:
        return Busy(f"The dataset viewer is still preparing {name}.", status=status, code=code)
    if code and isinstance(error, Busy) and status != 429:
        return Refused(f"The dataset viewer cannot show {name} ({code}).", status=status, code=code)
    if status == 501:
        return Refused(f"The dataset viewer does not support {name} ({code or status}).", status=status, code=code)
    return error


def _rows(page: Page, dataset: str, config: str, split: str) -> Rows:
    features: dict[str, Any] = {}
    for each in _list(page, "features"):
        kind = each.get("type")
        # A list of one type is written as a JSON list, a nested column as an object.
        if not isinstance(kind, dict | list):
            _malformed(page, "features.type")
        features[_text(page, each, "name")] = kind
    found, cut = [], set()
    for each in _list(page, "rows"):
        row = each.get("row")
        if not isinstance(row, dict):
            _malformed(page, "rows.row")
        found.append(row)
        cut |= {str(column) for column in each.get("truncated_cells") or ()}
    return Rows(dataset, config, split, features, tuple(found), frozenset(cut), page.url, page.fetched_at)


def _object(page: Page) -> dict[str, Any]:
    answer = page.json()
    if not isinstance(answer, dict):
        _malformed(page, "an object")
    return answer


def _list(page: Page, key: str) -> Sequence[dict[str, Any]]:
    return _objects(page, _object(page).get(key), key)


def _objects(page: Page, value: Any, key: str) -> Sequence[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        _malformed(page, key)
    return value


def _text(page: Page, each: Mapping[str, Any], key: str) -> str:
    value = each.get(key)
    if not isinstance(value, str):
        _malformed(page, key)
    return value


def _number(page: Page, each: Mapping[str, Any], key: str) -> int | None:
    value = each.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        _malformed(page, key)
    return value


def _count(page: Page, each: Mapping[str, Any]) -> int | None:
    """Rows: those that are counted may be the first part alone, and then the whole is estimated."""
    return _number(page, each, "estimated_num_rows") or _number(page, each, "num_rows")


def _malformed(page: Page, what: str) -> NoReturn:
    raise Malformed(f"The dataset viewer's answer lacks `{what}` as it is documented ({page.url[:120]}).")
