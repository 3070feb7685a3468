"""Data sets of the Hub: found, looked into and ranked, against its list and its viewer in their recorded shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.data.evaluation_sets import training_refusal
from bot.data.licences import licence_gate
from bot.research import viewer
from bot.research.datasets import information, look, search
from bot.research.errors import Busy, Malformed, NotFound, Refused, ResearchError
from bot.research.ranking import Ranked, Wanted, find
from bot.research.web import Web
from tests.research.hub_stand_in import HubStandIn, Shown
from tests.research.stand_in import Answer, web_at

NOW = 1_790_000_000.0
"""September 2026."""


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn().serve() as stand_in:
        stand_in.put("acme/sums", Shown(description="Sums of two numbers"))
        stand_in.put("acme/math-pairs", Shown(features={"prompt": "string", "chosen": "string", "rejected": "string"}))
        stand_in.put("acme/math-small", Shown(rows=50, downloads=2_000_000))
        stand_in.put("acme/math-deutsch", Shown(tags=("license:mit", "language:de"), downloads=7))
        stand_in.put("acme/math-unlicensed", Shown(tags=("language:en",)))
        stand_in.put("acme/math-nc", Shown(tags=("license:cc-by-nc-4.0", "language:en")))
        stand_in.put("acme/math-gated", Shown(gated="auto"))
        stand_in.put("acme/math-secret", Shown(private=True))
        stand_in.put("HuggingFaceH4/MATH-500", Shown(downloads=9_000_000))
        stand_in.put("openai/gsm8k", Shown(features={"question": "string", "answer": "string"}, downloads=800_000))
        yield stand_in


def at(folder: Path, hub: HubStandIn, **given: Any) -> Web:
    url = hub.server.url
    return web_at(folder, {"huggingface.co": url, "datasets-server.huggingface.co": url}, **given)


async def test_search_asks_what_the_hubs_own_client_asks_and_finds_the_same(tmp_path: Path, hub: HubStandIn) -> None:
    from huggingface_hub import HfApi

    found = await search(
        at(tmp_path, hub), "math", task="text-generation", language="en", size="", licence="mit", limit=5
    )
    ours = hub.server.asked[-1]

    def theirs() -> list[str]:
        listed = HfApi(endpoint=hub.server.url, token=False).list_datasets(
            search="math", task_categories="text-generation", language="en", filter="license:mit", sort="downloads",
            limit=5, expand=[
                "cardData", "createdAt", "description", "disabled", "downloads", "gated", "lastModified", "likes",
                "private", "sha", "tags",
            ],
        )  # fmt: skip
        return [each.id for each in listed if not each.private]

    assert [each.id for each in found] == await asyncio.to_thread(theirs)
    assert sorted(ours.query) == sorted(hub.server.asked[-1].query)
    assert "acme/math-secret" not in [each.id for each in found]
    one = next(each for each in found if each.id == "acme/math-small")
    assert (one.licences, one.languages, one.downloads, one.gated) == (("mit",), ("en",), 2_000_000, False)
    assert (one.source, one.fetched_at > 0) == ("https://huggingface.co/datasets/acme/math-small", True)


async def test_information_of_one(tmp_path: Path, hub: HubStandIn) -> None:
    web = at(tmp_path, hub)
    assert (await information(web, "openai/gsm8k")).sha == "e5" * 20
    with pytest.raises(Refused, match="does not exist, or is private"):
        await information(web, "acme/math-secret")
    with pytest.raises(NotFound):
        await information(web, "acme/nothing")
    for name in ("../../whoami-v2", "a/b/c", "a b", "acme/x?y=1"):
        with pytest.raises(Refused, match="no name of a data set"):
            await information(web, name)


async def test_viewer_answers_in_types(tmp_path: Path, hub: HubStandIn) -> None:
    web, name = at(tmp_path, hub), "acme/sums"
    assert [split.name for split in await viewer.splits(web, name)] == ["test", "train"]
    first = await viewer.first_rows(web, name, "default", "train")
    assert (first.columns, first.rows[0]["completion"]) == (("prompt", "completion"), "4")
    later = await viewer.rows(web, name, "default", "train", offset=40, length=2)
    assert len(later.rows) == 2
    assert hub.server.asked[-1].params["offset"] == "40"
    size = await viewer.size(web, name)
    assert (size.rows, [split.rows for split in size.splits]) == (5_010, [10, 5_000])
    statistics = await viewer.statistics(web, name, "default", "train")
    assert (statistics.examples, statistics.partial, statistics.columns[0].values["mean"]) == (5_000, True, 80.5)
    files = await viewer.parquet_files(web, name)
    assert files[1].url.endswith("/default/train/0000.parquet")
    with pytest.raises(ValueError, match="100 rows"):
        await viewer.rows(web, name, "default", "train", offset=0, length=101)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer(status=401, headers={"X-Error-Code": "ExternalUnauthenticatedError"}), Refused, "gated"),
        (Answer(status=404, headers={"X-Error-Code": "ExternalAuthenticatedError"}), Refused, "gated"),
        (Answer(status=404, headers={"X-Error-Code": "ResponseNotFound"}), NotFound, "knows no"),
        (Answer(status=500, headers={"X-Error-Code": "ResponseNotReady"}), Busy, "preparing"),
        (Answer(status=500, headers={"X-Error-Code": "StreamingRowsError"}), Refused, "StreamingRowsError"),
        (Answer(status=501, headers={"X-Error-Code": "DatasetWithScriptNotSupportedError"}), Refused, "not support"),
        (Answer(status=502), Busy, "502"),
        (Answer({"splits": "none"}), Malformed, "splits"),
        (Answer({"splits": [{"config": 3, "split": "train"}]}), Malformed, "config"),
        (Answer([]), Malformed, "object"),
        (Answer("<html>", content_type="text/html"), Malformed, "JSON"),
    ],
)
async def test_viewers_refusal_is_one_clear_sentence(
    tmp_path: Path, hub: HubStandIn, answer: Answer, error: type[ResearchError], said: str
) -> None:
    hub.put("acme/odd", Shown(viewer=answer))
    with pytest.raises(error, match=said) as caught:
        await viewer.splits(at(tmp_path, hub), "acme/odd")
    assert "\n" not in str(caught.value)


GOOD_ROWS: dict[str, Any] = {"features": [{"name": "a", "type": {}}], "rows": [{"row": {"a": 1}}]}


@pytest.mark.parametrize(
    "change",
    [
        {"features": [{"name": "a"}]}, {"features": None}, {"rows": [{"row": [1]}]}, {"rows": {"row": {}}},
        {"features": [{"type": {}}]},
    ],
)  # fmt: skip
async def test_rows_of_another_shape_are_malformed(tmp_path: Path, hub: HubStandIn, change: dict[str, Any]) -> None:
    hub.put("acme/odd", Shown(viewer=Answer(GOOD_ROWS)))
    assert (await viewer.first_rows(at(tmp_path, hub), "acme/odd", "default", "train")).columns == ("a",)
    hub.put("acme/odd", Shown(viewer=Answer(GOOD_ROWS | change)))
    with pytest.raises(Malformed):
        await viewer.first_rows(at(tmp_path / "2", hub), "acme/odd", "default", "train")


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "x"}, [{"name": "no id"}], ["text"], [{"id": "a/b", "tags": "mit"}],
        [{"id": "a/b", "downloads": "many"}], [{"id": "a/b", "lastModified": "yesterday"}],
    ],
)  # fmt: skip
async def test_list_of_another_shape_is_malformed(tmp_path: Path, hub: HubStandIn, answer: Any) -> None:
    hub.server.answers["/api/datasets"] = Answer(answer)
    with pytest.raises(Malformed):
        await search(at(tmp_path, hub), "math")


def gate(licence: str) -> tuple[bool, str]:
    found = licence_gate(licence, ["mit", "apache-2.0"])
    return found.ok, found.reason


async def ranked(folder: Path, hub: HubStandIn, wanted: Wanted) -> dict[str, Ranked]:
    web = at(folder, hub)
    found = await find(web, wanted, now=NOW, refuses=training_refusal, licence=gate, most_looked_at=10)
    return {each.dataset.id: each for each in found}


async def test_ranking_says_why_in_numbers(tmp_path: Path, hub: HubStandIn) -> None:
    found = await ranked(tmp_path, hub, Wanted("sft", words="math", language="en"))
    assert next(iter(found)) == "acme/math-small"  # the only one whose columns serve, but for the gated and the nc
    said = {name: " ".join(reason.sentence for reason in each.reasons) for name, each in found.items()}
    assert "50 rows, fewer than the 200" in said["acme/math-small"]
    assert "2,000,000 times" in said["acme/math-small"]
    assert "The licence of the dataset is `mit`." in said["acme/math-small"]
    assert "Its columns `prompt`, `completion` serve sft." in said["acme/math-small"]
    assert "0.3 years ago" in said["acme/math-small"]
    assert all(each.score == sum(reason.points for reason in each.reasons) for each in found.values())


async def test_language_is_searched_for(tmp_path: Path, hub: HubStandIn) -> None:
    found = await ranked(tmp_path, hub, Wanted("sft", words="math", language="de"))
    assert list(found) == ["acme/math-deutsch"]


async def test_benchmark_and_forbidden_licence_are_never_offered(tmp_path: Path, hub: HubStandIn) -> None:
    found = await ranked(tmp_path, hub, Wanted("sft", words="math"))
    assert "MATH-500" in found["HuggingFaceH4/MATH-500"].refused
    assert "cc-by-nc-4.0" in found["acme/math-nc"].refused
    best = [name for name, each in found.items() if not each.refused]
    assert best == list(found)[: len(best)]  # however often the others were downloaded
    assert not any("MATH-500" in asked.params.get("dataset", "") for asked in hub.server.asked)


async def test_gated_and_unlicensed_are_told(tmp_path: Path, hub: HubStandIn) -> None:
    found = await ranked(tmp_path, hub, Wanted("sft", words="math"))
    gated = [reason.sentence for reason in found["acme/math-gated"].reasons]
    assert any("accept its terms" in sentence for sentence in gated)
    assert any("gated: the viewer shows it to nobody" in sentence for sentence in gated)
    assert any("no licence" in reason.sentence for reason in found["acme/math-unlicensed"].reasons)


async def test_method_decides_whether_columns_serve(tmp_path: Path, hub: HubStandIn) -> None:
    dpo = await ranked(tmp_path, hub, Wanted("dpo", words="math"))
    assert next(iter(dpo)) == "acme/math-pairs"
    assert any(reason.points == -4 and "none that dpo" in reason.sentence for reason in dpo["acme/math-small"].reasons)
    wanted = await ranked(tmp_path, hub, Wanted("sft", words="math", columns=("answer",)))
    assert any("lacks the column `answer`" in reason.sentence for reason in wanted["acme/math-small"].reasons)


async def test_mapper_of_another_room_has_the_word(tmp_path: Path, hub: HubStandIn) -> None:
    found = await find(
        at(tmp_path, hub), Wanted("sft", words="sums"), now=NOW, refuses=training_refusal, licence=gate,
        mapper=lambda method, rows: (None, f"{method}: two columns may be the answer ({rows.rows[0]['completion']})."),
    )  # fmt: skip
    assert any(reason.sentence == "sft: two columns may be the answer (4)." for reason in found[0].reasons)


async def test_busy_viewer_is_a_reason_and_a_busy_hub_an_error(tmp_path: Path, hub: HubStandIn) -> None:
    hub.put("acme/sums", Shown(viewer=Answer(status=429, headers={"Retry-After": "600"})))
    web = at(tmp_path, hub)
    seen = await look(web, await information(web, "acme/sums"))
    assert "429" in seen.problem
    hub.server.answers["/api/datasets"] = Answer(status=429, headers={"Retry-After": "600"})
    with pytest.raises(Busy) as caught:
        await search(web, "anything")
    assert caught.value.retry_after_seconds == 600


async def test_answers_are_json_that_a_goal_can_keep(tmp_path: Path, hub: HubStandIn) -> None:
    record = tmp_path / "research.jsonl"
    await search(at(tmp_path, hub, record=record), "math", language="en")
    line = json.loads(record.read_text())
    assert (line["host"], line["path"]) == ("huggingface.co", "/api/datasets")
    assert "filter=language:en" in line["query"]
