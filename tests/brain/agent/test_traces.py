"""Transcripts as the trace viewer reads them, with nothing in them that must not leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent.traces import ITEM, Hidden, Session, trace_lines, write_trace
from bot.brain.agent.transcript import SUMMARY, Transcript
from bot.brain.model.talk import Call, Reply, Result, Role, Said, Stop, Usage
from bot.domain.redaction import redacted

SESSION = Session("acme/models#7/think-1", "experiments/0007-gsm8k", "postdoc/7", "0.1.0")
QUESTION = 'A farmer has 17 sheep and buys "a dozen" more.\nHow many sheep stand in the farmer\'s field on Monday?'


def reply(text: str, *calls: Call, stop: Stop = Stop.TOOLS) -> Reply:
    native = ({"type": "thinking", "thinking": "Let me see.", "signature": "abc"}, {"type": "redacted_thinking"})
    said = Said(Role.MODEL, text, calls, native=native)
    return Reply(said, stop, Usage(10, 20, 30, 40), 0.25, "claude-x", "req_1")


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    clock = iter(range(1_700_000_000, 1_700_001_000))
    written = Transcript(tmp_path / "t.jsonl", clock=lambda: next(clock))
    written.say("The task.")
    written.reply(reply("I look.", Call("t1", "python", {"code": "1"}), Call("t2", "nonsense", {})))
    written.result(Result("t1", f"shown: {QUESTION!r} and hf_{'a' * 34}"))
    written.result(Result("t2", "There is no such tool.", failed=True))
    written.say("", list(written.conversation.results.values()))
    written.reply(reply("short", stop=Stop.END), about=SUMMARY)
    written.compact([Said(Role.USER, "The task, and what happened.")])
    written.lost(Usage(5), 0.01, "the stream broke off")
    written.reply(
        reply("", Call("t3", "propose", {"why": "How many sheep stand in the farmer's field on Monday? Said so."}))
    )
    written.result(Result("t3", "accepted", finishes="x"))
    written.close("finished: x")
    return written


def lines_of(transcript: Transcript, path: Path) -> list[dict[str, Any]]:
    write_trace(transcript.lines(), path, SESSION, clean=redacted, hide=Hidden([QUESTION, "short"]))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_trace_is_a_chain_of_lines_as_claude_code_writes_them(transcript: Transcript, tmp_path: Path) -> None:
    lines = lines_of(transcript, tmp_path / "out" / "trace.jsonl")
    assert [line["type"] for line in lines] == [
        "user", "assistant", "user", "user", "assistant", "system", "user", "system", "assistant", "user", "system"
    ]  # fmt: skip
    assert [line["parentUuid"] for line in lines] == [None, *(line["uuid"] for line in lines[:-1])]
    assert {line["sessionId"] for line in lines} == {SESSION.id} and lines[0]["timestamp"] == "2023-11-14T22:13:20.000Z"
    assert lines[0]["message"] == {"role": "user", "content": "The task."} and lines[0]["cwd"] == SESSION.folder
    message = lines[1]["message"]
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert message["content"][2] == {"type": "tool_use", "id": "t1", "name": "python", "input": {"code": "1"}}
    assert (message["stop_reason"], message["model"], lines[1]["costUSD"]) == ("tool_use", "claude-x", 0.25)
    assert message["usage"] == {"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30,
                                "cache_creation_input_tokens": 40}  # fmt: skip
    assert lines[3]["message"]["content"] == [
        {"type": "tool_result", "tool_use_id": "t2", "content": "There is no such tool.", "is_error": True}
    ]
    assert lines[4]["isSidechain"] and lines[6]["isCompactSummary"] and "broke off" in lines[7]["content"]
    assert str(tmp_path) not in json.dumps(lines)


def test_every_call_has_its_answer_in_a_trace(transcript: Transcript, tmp_path: Path) -> None:
    blocks = [block for line in lines_of(transcript, tmp_path / "t") if line["type"] != "system"
              for block in line["message"]["content"] if isinstance(block, dict)]  # fmt: skip
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert called == [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"] == ["t1", "t2", "t3"]


def test_no_secret_and_no_item_of_the_benchmark_is_in_a_trace(transcript: Transcript, tmp_path: Path) -> None:
    text = json.dumps(lines_of(transcript, tmp_path / "trace.jsonl"))
    assert "hf_aaaa" not in text and "[redacted]" in text
    assert (
        "farmer" not in text
        and "sheep" not in text
        and text.count(ITEM) == 2
        and "Said so." in text
        and "short" in text
    )


def test_a_longer_transcript_gives_the_same_lines_and_more(transcript: Transcript, tmp_path: Path) -> None:
    before = lines_of(transcript, tmp_path / "a")
    transcript.say("A question.")
    after = lines_of(transcript, tmp_path / "b")
    assert after[: len(before)] == before and len(after) == len(before) + 1


@pytest.mark.parametrize(
    "shown",
    [QUESTION, repr(QUESTION), json.dumps(QUESTION), json.dumps(repr(QUESTION)), f"x{QUESTION}y", QUESTION[:60],
     QUESTION.replace("\n", "\n     "), QUESTION.upper(), " ".join(QUESTION), QUESTION[7:70],
     QUESTION[20:70] + "... cut", f"{QUESTION}{QUESTION}"],
)  # fmt: skip
def test_a_hidden_text_goes_however_it_is_cut_and_quoted(shown: str) -> None:
    told = Hidden(["Something else that is as long as that", QUESTION])({"k": [f"before {shown} behind"], shown: 1})
    left = "".join(character for character in json.dumps(told).lower() if character.isalnum())
    for piece in ("17sheep", "buysadozen", "howmany", "farmersfield"):
        assert piece not in left
    assert ITEM in told["k"][0] and told["k"][0].startswith("befo") and told["k"][0].endswith(" behind")


def test_many_items_that_are_alike_take_little_room() -> None:
    hidden = Hidden([f"item number {n} " + "abcdefgh" * 40 for n in range(200)])
    assert hidden("abcdefgh" * 20_000).count(ITEM) <= 20_000 * 8 // 24
    assert len(hidden._places) < 200 * 60


def test_what_hides_nothing_changes_nothing() -> None:
    value = {"a": ["text" * 100, 1, None, True, 2.5]}
    assert Hidden([])(value) == value and Hidden(["quite another text, as long as that"])(value) == value
    assert list(trace_lines([], SESSION)) == []
