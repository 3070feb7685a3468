"""The way out of research, against servers on loopback that answer, refuse, redirect and misbehave."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.research.errors import Busy, Malformed, NotFound, Refused, ResearchError
from bot.research.hosts import HOSTS
from bot.research.web import Params, Web
from tests.research.stand_in import Answer, Asked, StandIn, unpaced, web_at

ARXIV = "https://export.arxiv.org/api/query"
HUB = "https://huggingface.co/api/datasets"
VIEWER = "https://datasets-server.huggingface.co/splits"
OLD_TOKEN = "0a1b2c3d4e" * 4
"""GitHub's old tokens and those of W&B look like a commit."""
TOKEN = "hf_" + "abcdefghijABCDEFGHIJ0123456789abcd"


@pytest.fixture
def there() -> Iterator[StandIn]:
    with StandIn().serve() as stand_in:
        stand_in.answers["/api/query"] = Answer("<feed/>", content_type="application/atom+xml")
        stand_in.answers["/api/datasets"] = Answer([{"id": "a/b"}])
        yield stand_in


@pytest.fixture
def elsewhere() -> Iterator[StandIn]:
    with StandIn().serve() as stand_in:
        yield stand_in


def at(folder: Path, *servers: StandIn, **given: object) -> Web:
    addresses = {"export.arxiv.org": servers[0].url, "huggingface.co": servers[0].url}
    if len(servers) > 1:
        addresses["datasets-server.huggingface.co"] = servers[1].url
    return web_at(folder, addresses, **given)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/api/query",
        "http://export.arxiv.org/api/query",
        "https://export.arxiv.org:8443/api/query",
        "https://user@export.arxiv.org/api/query",
        "https://export.arxiv.org.evil.example/api/query",
        "https://EXPORT.arxiv.org/api/query",
        "https://export.arxiv.org/api/query/../../x",
        "https://export.arxiv.org/anything",
        "https://api.github.com/repos/a/b/contents/%2e%2e/%2e%2e/user",
        "https://api.github.com/user",
        "https://huggingface.co./api/datasets",
        "https://huggingface.co/somebody/space?x=1",
        "https://huggingface.co/datasets/a/b/resolve/main/../../../x",
        "https://huggingface.co/api/whoami-v2",
        "file:///etc/passwd",
        "//export.arxiv.org/api/query",
    ],
)
async def test_address_off_the_list_is_not_asked(tmp_path: Path, there: StandIn, url: str) -> None:
    with pytest.raises(Refused):
        await at(tmp_path, there).get(url)
    assert there.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/api/papers/search",
        "https://huggingface.co/api/papers/2402.03300",
        "https://huggingface.co/api/datasets/openai/gsm8k",
        "https://huggingface.co/api/datasets/squad",
        "https://huggingface.co/datasets/openai/gsm8k/resolve/e53f048856ff4f594e959d75785d2c2d37b678ee/README.md",
        "https://huggingface.co/docs/trl/sft_trainer",
        "https://arxiv.org/html/2402.03300v3",
        "https://arxiv.org/e-print/cs/0112017",
        "https://ar5iv.labs.arxiv.org/html/2402.03300",
        "https://api.semanticscholar.org/graph/v1/paper/arXiv:2402.03300/citations",
        "https://api.semanticscholar.org/graph/v1/paper/649def34f8be52c8b66281af98ae884c09aef38b",
    ],
)
async def test_address_of_a_documented_interface_is_asked(tmp_path: Path, there: StandIn, url: str) -> None:
    with pytest.raises(NotFound):
        await web_at(tmp_path, dict.fromkeys(HOSTS, there.url)).get(url)
    assert len(there.asked) == 1


async def test_what_carries_data_leaves_neither_in_parameters_nor_in_a_path(tmp_path: Path, there: StandIn) -> None:
    def ours(text: str) -> str | None:
        return "is ours" if "roe" in text else None

    web = at(tmp_path, there, secrets=["hunter2-is-known", OLD_TOKEN], private=ours)
    asked: list[tuple[str, Params]] = [
        (ARXIV, {"search_query": "jane roe"}),
        (ARXIV, {"search_query": "hunter2-is-known"}),
        (ARXIV, {"jane roe": "x"}),
        (f"{ARXIV}?search_query=jane%20roe", {}),
        (f"{HUB}/acme/jane-roe", {}),
        (f"{HUB}/acme/{b'secret words go out here'.hex()}", {}),
        (f"https://huggingface.co/datasets/a/b/resolve/{OLD_TOKEN}/README.md", {}),
        (HUB, {"filter": ["language:en", "jane roe"]}),
    ]
    for url, params in asked:
        with pytest.raises(Refused):
            await web.get(url, params=params)
    assert there.asked == []


async def test_answer_is_kept_with_its_moment_and_asked_again_when_old(tmp_path: Path, there: StandIn) -> None:
    now = [1000.0]
    web = at(tmp_path, there, clock=lambda: now[0])
    first = await web.get(ARXIV, params={"search_query": "lora", "start": "0"})
    now[0] += 50
    again = await web.get(f"{ARXIV}?start=0", params={"search_query": "lora"}, max_age_seconds=60)
    assert (first.cached, again.cached, again.fetched_at, again.body) == (False, True, 1000.0, b"<feed/>")
    now[0] += 50
    third = await web.get(ARXIV, params={"search_query": "lora", "start": "0"}, max_age_seconds=60)
    assert (third.cached, third.fetched_at, len(there.asked)) == (False, 1100.0, 2)


async def test_damaged_cache_is_asked_again(tmp_path: Path, there: StandIn) -> None:
    web = at(tmp_path, there)
    await web.get(HUB)
    for file in (tmp_path / "cache").glob("*/*"):
        file.write_bytes(file.read_bytes()[:-1])
    assert not (await web.get(HUB)).cached


async def test_failure_is_not_kept(tmp_path: Path, there: StandIn) -> None:
    web = at(tmp_path, there)
    there.answers["/api/datasets"] = Answer(status=500)
    with pytest.raises(Busy):
        await web.get(HUB)
    there.answers["/api/datasets"] = Answer([])
    assert (await web.get(HUB)).json() == []


async def test_every_request_is_recorded_before_it_leaves(tmp_path: Path, there: StandIn) -> None:
    record = tmp_path / "goal" / "research.jsonl"
    seen: list[str] = []

    def answer(_: Asked) -> Answer:
        seen.append(record.read_text())
        return Answer(status=500)

    there.answers["/api/query"] = answer
    web = at(tmp_path, there, record=record, clock=lambda: 7.0)
    with pytest.raises(Busy):
        await web.get(ARXIV, params={"search_query": "rank adaptation"})
    line = {"at": 7.0, "host": "export.arxiv.org", "path": "/api/query", "query": "search_query=rank adaptation"}
    assert [json.loads(text) for text in seen] == [line]


async def test_token_goes_to_its_own_host_alone(tmp_path: Path, there: StandIn, elsewhere: StandIn) -> None:
    elsewhere.answers["/splits"] = Answer({})
    web = at(tmp_path, there, elsewhere, tokens={"huggingface.co": TOKEN})
    await web.get(HUB)
    await web.get(ARXIV)
    await web.get(VIEWER)
    assert [asked.headers.get("authorization") for asked in there.asked] == [f"Bearer {TOKEN}", None]
    assert "authorization" not in elsewhere.asked[0].headers


async def test_token_may_stand_in_no_query(tmp_path: Path, there: StandIn) -> None:
    token = "quite-plain-words"
    web = at(tmp_path, there, tokens={"huggingface.co": token})
    with pytest.raises(Refused):
        await web.get(ARXIV, params={"search_query": f"all {token}"})
    assert there.asked == []


async def test_what_a_token_sees_is_not_shown_without_it(tmp_path: Path, there: StandIn) -> None:
    await at(tmp_path, there, tokens={"huggingface.co": TOKEN}).get(HUB)
    assert not (await at(tmp_path, there).get(HUB)).cached


async def test_netrc_of_the_machine_is_not_read(
    tmp_path: Path, there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret-of-mine\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    await at(tmp_path, there).get(HUB)
    assert "authorization" not in there.asked[0].headers


async def test_proxy_of_the_machine_is_used_but_where_it_is_exempt(
    tmp_path: Path, elsewhere: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", elsewhere.url)
    with pytest.raises(Busy):
        await Web(tmp_path, hosts=unpaced()).get(HUB)
    assert elsewhere.tunnels == ["huggingface.co:443"]
    nowhere = "https://127.0.0.1:9"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(Busy):
        await web_at(tmp_path, {"huggingface.co": nowhere}).get(HUB)
    assert elsewhere.tunnels == ["huggingface.co:443"]


async def test_redirect_to_another_host_is_refused_and_gets_nothing(
    tmp_path: Path, there: StandIn, elsewhere: StandIn
) -> None:
    web = at(tmp_path, there, elsewhere, tokens={"huggingface.co": TOKEN})
    targets = [f"{elsewhere.url}/splits", "https://evil.example/x", "//evil.example/x", "https://evil.example:443/x"]
    for number, target in enumerate(targets):
        there.answers["/api/datasets"] = Answer(status=302, headers={"Location": target})
        with pytest.raises(Refused, match="another host"):
            await web.get(HUB, params={"limit": str(number)})
    assert elsewhere.asked == []


async def test_redirect_on_the_host_is_followed_where_its_path_is_allowed(tmp_path: Path, there: StandIn) -> None:
    web = at(tmp_path, there, tokens={"huggingface.co": TOKEN})
    there.answers["/api/datasets/old/name"] = Answer(status=307, headers={"Location": "/api/datasets/new/name"})
    there.answers["/api/datasets/new/name"] = Answer({"id": "new/name"})
    page = await web.get(f"{HUB}/old/name")
    assert (page.url, page.json()) == (f"{HUB}/new/name", {"id": "new/name"})
    there.answers["/api/datasets/old/name"] = Answer(status=307, headers={"Location": f"{there.url}/api/tokens"})
    with pytest.raises(Refused, match="no address"):
        await web.get(f"{HUB}/old/name", max_age_seconds=0)


async def test_redirects_without_end_are_refused(tmp_path: Path, there: StandIn) -> None:
    there.answers["/api/datasets/a/b"] = Answer(status=302, headers={"Location": "/api/datasets/a/b"})
    with pytest.raises(Refused, match="more than 3 times"):
        await at(tmp_path, there).get(f"{HUB}/a/b")


@pytest.mark.parametrize(
    ("status", "headers", "error", "seconds"),
    [
        (404, {}, NotFound, None),
        (410, {}, NotFound, None),
        (401, {"X-Error-Code": "GatedRepo"}, Refused, None),
        (403, {}, Refused, None),
        (400, {}, Refused, None),
        (422, {}, Refused, None),
        (429, {"Retry-After": "77"}, Busy, 77.0),
        (429, {}, Busy, 15.0),
        (500, {}, Busy, None),
        (503, {"Retry-After": "9"}, Busy, 9.0),
        (504, {}, Busy, None),
    ],
)
async def test_status_is_the_error_that_a_caller_acts_on(
    tmp_path: Path, there: StandIn, status: int, headers: dict[str, str], error: type[ResearchError], seconds: float
) -> None:
    there.answers["/api/datasets"] = Answer(status=status, headers=headers)
    with pytest.raises(error) as caught:
        await at(tmp_path, there).get(HUB)
    assert (caught.value.status, caught.value.code) == (status, headers.get("X-Error-Code", ""))
    assert getattr(caught.value, "retry_after_seconds", None) == seconds
    assert "\n" not in str(caught.value)


async def test_rate_limit_sleeps_nobody_and_the_host_is_left_alone(
    tmp_path: Path, there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr("bot.research.web.asyncio.sleep", sleep)
    now = [0.0]
    web = at(tmp_path, there, tick=lambda: now[0])
    there.answers["/api/query"] = Answer(status=429, headers={"Retry-After": "60"})
    with pytest.raises(Busy) as first:
        await web.get(ARXIV)
    there.answers["/api/query"] = Answer("<feed/>")
    now[0] = 20.0
    with pytest.raises(Busy) as second:
        await web.get(ARXIV)
    assert (first.value.retry_after_seconds, second.value.retry_after_seconds, len(there.asked)) == (60.0, 40.0, 1)
    await web.get(HUB)  # another host has no part in it
    now[0] = 61.0
    assert (await web.get(ARXIV)).text() == "<feed/>"


async def test_pace_waits_a_little_and_sends_away_who_would_wait_long(
    tmp_path: Path, there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("bot.research.web.asyncio.sleep", sleep)
    hosts = unpaced() | {"export.arxiv.org": replace(HOSTS["export.arxiv.org"], pause_seconds=3.0)}
    web = at(tmp_path, there, hosts=hosts, tick=lambda: 100.0)
    await web.get(ARXIV, params={"start": "0"})
    await web.get(ARXIV, params={"start": "1"})
    with pytest.raises(Busy) as caught:
        await web.get(ARXIV, params={"start": "2"})
    assert (waits, caught.value.retry_after_seconds, len(there.asked)) == ([3.0], 6.0, 2)
    assert (await web.get(ARXIV, params={"start": "1"})).cached  # what is kept needs no turn


async def test_no_network_is_busy(tmp_path: Path) -> None:
    with pytest.raises(Busy, match="could not be reached"):
        await web_at(tmp_path, {}).get(HUB)


async def test_answer_that_is_too_long_is_not_read(tmp_path: Path, there: StandIn) -> None:
    there.answers["/api/datasets"] = Answer(b"x" * 2000, content_type="application/json")
    with pytest.raises(Malformed, match="more than 1,000 bytes"):
        await at(tmp_path, there).get(HUB, most_bytes=1000)
    assert len((await at(tmp_path, there).get(HUB, most_bytes=2000)).body) == 2000
    with pytest.raises(Malformed, match="more than 1,999 bytes"):
        await at(tmp_path, there).get(HUB, most_bytes=1999)  # from the cache


def packed(data: bytes) -> Answer:
    return Answer(gzip.compress(data), headers={"Content-Encoding": "gzip"}, content_type="application/json")


async def test_compressed_answer_is_unpacked_within_bounds(tmp_path: Path, there: StandIn) -> None:
    there.answers["/api/datasets"] = packed(b'{"a": 1}')
    assert (await at(tmp_path, there).get(HUB)).json() == {"a": 1}
    there.answers["/api/datasets"] = packed(b"0" * 50_000_000)
    with pytest.raises(Malformed, match="more than"):
        await at(tmp_path, there).get(HUB, params={"limit": "2"}, most_bytes=1 << 20)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(zlib.compress(b"[]"), headers={"Content-Encoding": "br"}, content_type="application/json"), Malformed),
        (Answer(b"no gzip", headers={"Content-Encoding": "gzip"}, content_type="application/json"), Malformed),
        (Answer(gzip.compress(b"[]" * 999)[:-9], headers={"Content-Encoding": "gzip"}, content_type="text/x"), Busy),
        (Answer(b"\x7fELF", content_type="application/x-executable"), Malformed),
        (Answer(b"[]", content_type="application/json", headers={"Content-Length": "99"}), Busy),
    ],
)
async def test_broken_answer_is_one_clear_error(
    tmp_path: Path, there: StandIn, answer: Answer, error: type[ResearchError]
) -> None:
    there.answers["/api/datasets"] = answer
    with pytest.raises(error):
        await at(tmp_path, there).get(HUB)


async def test_page_that_is_no_json_or_no_known_text_is_malformed(tmp_path: Path, there: StandIn) -> None:
    there.answers["/api/datasets"] = Answer("[" * 100_000, content_type="application/json; charset=klingon")
    page = await at(tmp_path, there).get(HUB)
    for read in (page.json, page.text):
        with pytest.raises(Malformed):
            read()


def test_address_in_a_hosts_place_has_tls_or_is_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        Web(tmp_path, addresses={"huggingface.co": "http://10.0.0.1"})
    with pytest.raises(ValueError, match="not a host"):
        Web(tmp_path, tokens={"evil.example": TOKEN})
