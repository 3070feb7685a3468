"""Code of public GitHub repositories, through the App's own client, against GitHub's answers in their shape."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bot.conversation.github.client import GitHubApp
from bot.conversation.github.credentials import Credentials
from bot.conversation.github.limits import Pacing
from bot.loop.github_reader import AppReader
from bot.research.code import Code
from bot.research.errors import Busy, Malformed, NotFound, Refused, ResearchError
from tests.research.stand_in import Answer, StandIn, WebReader, web_at

TOKEN = "ghs_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6"
FILE = "import trl\n\nprint('grüß')\n"


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def repository(name: str, **more: Any) -> dict[str, Any]:
    return {"id": 1, "full_name": name, "private": False, "visibility": "public", **more}


def item(name: str, path: str = "train.py", **more: Any) -> dict[str, Any]:
    url = f"https://github.com/{name}/blob/{'0a' * 20}/{path}"
    matches = [{"object_type": "FileContent", "property": "content", "fragment": "SFTTrainer(", "matches": []}]
    return {
        "name": path, "path": path, "sha": "0b" * 20, "html_url": url, "repository": repository(name, **more),
        "score": 1.0, "text_matches": matches,
    }  # fmt: skip


def content(text: bytes, **more: Any) -> dict[str, Any]:
    encoded = base64.encodebytes(text).decode()  # GitHub breaks its lines too
    return {"type": "file", "encoding": "base64", "size": len(text), "sha": "0c" * 20, "content": encoded, **more}


@pytest.fixture
def github() -> Iterator[StandIn]:
    with StandIn().serve() as stand_in:
        found = [
            item("huggingface/trl"), item("acme/secret", private=True), item("acme/shy"), item("acme/inner"),
        ]  # fmt: skip
        stand_in.answers |= {
            "/search/code": Answer({"total_count": 4, "incomplete_results": False, "items": found}),
            "/repos/huggingface/trl": Answer(repository("huggingface/trl")),
            "/repos/acme/secret": Answer(repository("acme/secret", private=True, visibility="private")),
            "/repos/acme/shy": Answer(repository("acme/shy", private=True, visibility="private")),
            "/repos/acme/inner": Answer(repository("acme/inner", visibility="internal")),
            "/repos/huggingface/trl/contents/examples/sft.py": Answer(content(FILE.encode())),
            "/repos/huggingface/trl/contents/examples": Answer(
                [{"type": "file", "path": "examples/sft.py"}, {"type": "dir", "path": "examples/scripts"}]
            ),
            "/repos/acme/secret/contents/key.txt": Answer(content(b"the secret")),
        }
        yield stand_in


@pytest.fixture
async def code(tmp_path: Path, github: StandIn, key: str) -> AsyncIterator[Code]:
    credentials = Credentials("7", key)
    credentials.keep(42, {"token": TOKEN})
    web = web_at(tmp_path, {}, secrets=["hunter2-is-known"], record=tmp_path / "record.jsonl")
    async with GitHubApp(credentials=credentials, base_url=github.url, pacing=Pacing(0, 0)) as app:
        yield Code(AppReader(web, app, 42))


async def test_file_is_read_with_the_apps_token(code: Code, github: StandIn, tmp_path: Path) -> None:
    found = await code.read("huggingface/trl", "examples/sft.py", revision="v1.0")
    assert (found.text, found.sha) == (FILE, "0c" * 20)
    assert found.source == "https://github.com/huggingface/trl/blob/v1.0/examples/sft.py"
    assert {asked.headers["authorization"] for asked in github.asked} == {f"Bearer {TOKEN}"}
    assert github.asked[-1].params["ref"] == "v1.0"
    assert "contents/examples/sft.py" in (tmp_path / "record.jsonl").read_text()


async def test_search_shows_public_repositories_alone(code: Code, github: StandIn) -> None:
    """GitHub's word on each hit, and on each repository again: the list itself may be wrong about one."""
    hits = await code.search("SFTTrainer packing", language="python", limit=5)
    assert [(hit.repository, hit.fragments) for hit in hits] == [("huggingface/trl", ("SFTTrainer(",))]
    first = github.asked[0]
    assert (first.params["q"], first.params["per_page"]) == ("SFTTrainer packing language:python", "5")


@pytest.mark.parametrize("name", ["acme/secret", "acme/inner", "acme/missing"])
async def test_private_repository_is_refused_though_the_token_reads_it(code: Code, github: StandIn, name: str) -> None:
    for ask in (code.read(name, "key.txt"), code.folder(name), code.search("key", repository=name)):
        with pytest.raises(Refused, match="not public"):
            await ask
    assert [asked.path for asked in github.asked] == [f"/repos/{name}"]


async def test_folder_is_listed(code: Code) -> None:
    assert await code.folder("huggingface/trl", "examples") == ["examples/sft.py", "examples/scripts/"]
    with pytest.raises(Refused, match="no file"):
        await code.read("huggingface/trl", "examples")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer(status=404), NotFound, "nothing at"),
        (Answer(content(b"\xff\xfe\x00")), Refused, "no text"),
        (Answer(content(b"x", size=2 << 20)), Refused, "larger"),
        (Answer(content(b"", encoding="none")), Refused, "larger"),
        (Answer(content(b"x") | {"content": "***"}), Malformed, "broken"),
        (Answer(content(b"x") | {"encoding": "rot13"}), Malformed, "encoding"),
        (Answer({"type": "file"}), Malformed, "content"),
        (Answer({"type": "submodule"}), Refused, "no file"),
        (Answer("<html>", content_type="text/html"), Malformed, "no JSON"),
        (Answer(status=500), Busy, "cannot be asked"),
    ],
)
async def test_answer_of_another_kind_is_one_clear_error(
    code: Code, github: StandIn, answer: Answer, error: type[ResearchError], said: str
) -> None:
    github.answers["/repos/huggingface/trl/contents/a.py"] = answer
    with pytest.raises(error, match=said):
        await code.read("huggingface/trl", "a.py")


async def test_search_of_another_shape_is_malformed(code: Code, github: StandIn) -> None:
    bodies: list[Any] = [{"items": None}, [], {"items": [{"path": "a.py"}]}]
    for body in bodies:
        github.answers["/search/code"] = Answer(body)
        with pytest.raises(Malformed):
            await code.search("anything")


async def test_rate_limit_is_busy_and_nobody_asks_before_it_ends(
    code: Code, github: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr("asyncio.sleep", sleep)
    github.answers["/search/code"] = Answer(
        {"message": "API rate limit exceeded"}, status=429, headers={"Retry-After": "50"}
    )
    for _ in range(2):
        with pytest.raises(Busy) as caught:
            await code.search("anything")
        assert 0 < float(caught.value.retry_after_seconds or 0) <= 60
    assert len(github.asked) == 1


@pytest.mark.parametrize(
    ("name", "path", "revision"),
    [
        ("huggingface/trl", "../../../orgs/acme", ""), ("huggingface/trl", "a/../../b", ""),
        ("huggingface/trl", "a.py?x=1", ""), ("huggingface/trl", "/etc/passwd", ""), ("huggingface/trl", "", ""),
        ("../acme", "a.py", ""), ("huggingface", "a.py", ""), ("a/b/c", "a.py", ""),
        ("huggingface/trl", "a.py", "../x"), ("huggingface/trl", "a.py", "-x y"),
        ("huggingface/trl", "hunter2-is-known", ""), ("huggingface/trl", f"{b'a private row of ours'.hex()}.py", ""),
    ],
)  # fmt: skip
async def test_name_that_is_none_is_not_asked(code: Code, github: StandIn, name: str, path: str, revision: str) -> None:
    with pytest.raises(Refused):
        await code.read(name, path, revision=revision)
    assert all(asked.path == "/repos/huggingface/trl" for asked in github.asked)


@pytest.mark.parametrize("words", ["org:acme password", "x repo:acme/secret", "is:private key", "hunter2-is-known"])
async def test_words_that_would_look_elsewhere_are_not_searched(code: Code, github: StandIn, words: str) -> None:
    with pytest.raises(Refused):
        await code.search(words)
    assert github.asked == []


async def test_without_an_app_public_files_are_read_without_an_account(tmp_path: Path, github: StandIn) -> None:
    code = Code(WebReader(web_at(tmp_path, {"api.github.com": github.url})))
    assert (await code.read("huggingface/trl", "examples/sft.py")).text == FILE
    assert all("authorization" not in asked.headers for asked in github.asked)
    with pytest.raises(Refused, match="not public"):
        await code.read("acme/secret", "key.txt")
