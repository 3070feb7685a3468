"""The two APIs that the brain thinks through, served over HTTP to the real clients: a test writes the model's side.

    api = MessagesApi()
    api.say(text("Hello"), calls(("python", {"code": "1"})), overloaded(), broken_off("Hel"))
    with api.serve(): ...

`MessagesApi` refuses what the real one refuses (https://platform.claude.com/docs/en/api/messages): a call that the next
message does not answer, an answer without its call, two messages of one side after the other, a missing version. It
counts tokens as four characters each, and keeps what was marked for its cache.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Answer:
    """What comes instead of or as the next reply."""

    blocks: list[Json] = field(default_factory=list)
    stop: str = "end_turn"
    status: int = 200
    error: str = ""
    """Type of the error, where it is one."""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    break_after: int | None = None
    """The stream ends in an error, or in nothing, after so many events."""
    hang_up: bool = False
    raw: bytes | None = None


Script = Answer | Callable[[Json], Answer]


def text(words: str, stop: str = "end_turn") -> Answer:
    return Answer([{"type": "text", "text": words}], stop)


def calls(*named: tuple[str, Mapping[str, Any]], words: str = "", stop: str = "tool_use") -> Answer:
    blocks: list[Json] = [{"type": "text", "text": words}] if words else []
    return Answer([*blocks, *({"type": "tool_use", "name": n, "input": dict(a)} for n, a in named)], stop)


def error(status: int, kind: str, message: str = "no", **headers: str) -> Answer:
    return Answer(status=status, error=kind, message=message, headers=headers)


def overloaded() -> Answer:
    return error(529, "overloaded_error", "Overloaded")


def broken_off(words: str, kind: str = "overloaded_error") -> Answer:
    """The stream begins, and ends in an error under the status 200."""
    return Answer([{"type": "text", "text": words}], error=kind, message="Overloaded", break_after=3)


def hung_up(words: str) -> Answer:
    return Answer([{"type": "text", "text": words}], break_after=3, hang_up=True)


class _Api:
    """What both have in common: a script, a record of what was asked, and a door on loopback."""

    path = "/"

    def __init__(self, key: str = "key-of-a-test") -> None:
        self.key = key
        self.script: list[Script] = []
        self.asked: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._lock = threading.Lock()
        self._calls = 0

    def say(self, *answers: Script) -> None:
        self.script += answers

    @contextmanager
    def serve(self) -> Iterator[Any]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with api._lock:
                    api.asked.append(body)
                    api.headers.append({name.lower(): value for name, value in self.headers.items()})
                    answer = api.answer(self.path, api.headers[-1], body)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    api.send(self, body, answer)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}{self.path}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, path: str, headers: Mapping[str, str], body: Json) -> Answer:
        if headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "authentication_error", "invalid key")
        if (wrong := self.wrong(path, headers, body)) is not None:
            return error(400, "invalid_request_error", wrong)
        if not self.script:
            return error(400, "invalid_request_error", "the test has scripted no further answer")
        said = self.script.pop(0)
        return said(body) if callable(said) else said

    def wrong(self, path: str, headers: Mapping[str, str], body: Json) -> str | None:
        raise NotImplementedError

    def send(self, handler: BaseHTTPRequestHandler, body: Json, answer: Answer) -> None:
        raise NotImplementedError

    def _plain(self, handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _stream(self, handler: BaseHTTPRequestHandler, lines: list[bytes], hang_up: bool) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("request-id", f"req_{len(self.asked)}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in lines:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            handler.wfile.flush()
        if hang_up:
            handler.close_connection = True
            handler.connection.close()
        else:
            handler.wfile.write(b"0\r\n\r\n")

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls


class MessagesApi(_Api):
    def __init__(self, key: str = "key-of-a-test") -> None:
        super().__init__(key)
        self._cache: set[str] = set()

    def wrong(self, path: str, headers: Mapping[str, str], body: Json) -> str | None:
        if path != "/v1/messages":
            return f"no such path {path}"
        if "anthropic-version" not in headers:
            return "anthropic-version: header is required"
        if not isinstance(body.get("max_tokens"), int):
            return "max_tokens: Field required"
        return _unanswered(body["messages"])

    def send(self, handler: BaseHTTPRequestHandler, body: Json, answer: Answer) -> None:
        if answer.raw is not None:
            self._plain(handler, answer.status, answer.raw, answer.headers)
            return
        if answer.status != 200:
            said = {"type": "error", "error": {"type": answer.error, "message": answer.message}}
            self._plain(handler, answer.status, json.dumps(said).encode(), answer.headers)
            return
        events = list(self._events(body, answer))
        if answer.break_after is not None:
            events = events[: answer.break_after]
            if not answer.hang_up:
                events.append({"type": "error", "error": {"type": answer.error, "message": answer.message}})
        lines = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
        self._stream(handler, lines, answer.hang_up)

    def _events(self, body: Json, answer: Answer) -> Iterator[Json]:
        usage = self._usage(body)
        message = {"id": f"msg_{len(self.asked)}", "type": "message", "role": "assistant", "model": body["model"],
                   "content": [], "stop_reason": None, "stop_sequence": None,
                   "usage": usage | {"output_tokens": 1}}  # fmt: skip
        yield {"type": "message_start", "message": message}
        yield {"type": "ping"}
        written = 0
        for index, block in enumerate(answer.blocks):
            yield from self._block(index, block)
            written += len(json.dumps(block)) // 4
        yield {"type": "message_delta", "delta": {"stop_reason": answer.stop, "stop_sequence": None},
               "usage": {"output_tokens": written}}  # fmt: skip
        yield {"type": "message_stop"}

    def _block(self, index: int, block: Json) -> Iterator[Json]:
        start: Json
        deltas: list[Json]
        match block["type"]:
            case "text":
                start = {"type": "text", "text": ""}
                deltas = [{"type": "text_delta", "text": part} for part in _pieces(block["text"])]
            case "thinking":
                start = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": block["thinking"]},
                          {"type": "signature_delta", "signature": block["signature"]}]  # fmt: skip
            case _:
                start = {"type": "tool_use", "id": f"toolu_{self._next_call()}", "name": block["name"], "input": {}}
                written = json.dumps(block["input"])
                deltas = [{"type": "input_json_delta", "partial_json": part} for part in _pieces(written)]
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}

    def _usage(self, body: Json) -> Json:
        """What was cached before is read, what is marked now is written, the rest is input."""
        parts = [*body.get("tools", []), *body["system"]]
        parts += [block for message in body["messages"] for block in message["content"]]
        whole, marks = "", []
        for part in parts:
            marked = "cache_control" in part
            whole += json.dumps({key: value for key, value in part.items() if key != "cache_control"}, sort_keys=True)
            if marked:
                marks.append(whole)
        read = max((len(prefix) for prefix in self._cache if whole.startswith(prefix)), default=0)
        written = max((len(prefix) for prefix in marks), default=0)
        self._cache.update(marks)
        return {"input_tokens": (len(whole) - max(read, written)) // 4, "cache_read_input_tokens": read // 4,
                "cache_creation_input_tokens": max(0, written - read) // 4}  # fmt: skip


class ChatApi(_Api):
    """Chat completions, as vLLM answers: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"""

    path = "/v1"

    def __init__(self, key: str = "key-of-a-test", *, counts: bool = True) -> None:
        super().__init__(key)
        self.counts = counts

    def wrong(self, path: str, headers: Mapping[str, str], body: Json) -> str | None:
        if path != "/v1/chat/completions":
            return f"no such path {path}"
        asked: set[str] = set()
        for message in body["messages"]:
            if message["role"] == "tool":
                if message["tool_call_id"] not in asked:
                    return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
                asked.discard(message["tool_call_id"])
            elif asked:
                return f"tool_call_ids did not have response messages: {', '.join(sorted(asked))}"
            asked |= {call["id"] for call in message.get("tool_calls", [])}
        return f"tool_call_ids did not have response messages: {', '.join(sorted(asked))}" if asked else None

    def send(self, handler: BaseHTTPRequestHandler, body: Json, answer: Answer) -> None:
        if answer.raw is not None:
            self._plain(handler, answer.status, answer.raw, answer.headers)
            return
        if answer.status != 200:
            said = {"error": {"message": answer.message, "type": answer.error, "code": None}}
            self._plain(handler, answer.status, json.dumps(said).encode(), answer.headers)
            return
        pieces = list(self._pieces_of(body, answer))
        if answer.break_after is not None:
            pieces = pieces[: answer.break_after]
            if not answer.hang_up:
                pieces.append({"error": {"message": answer.message, "type": answer.error}})
            self._stream(handler, [f"data: {json.dumps(p)}\n\n".encode() for p in pieces], answer.hang_up)
            return
        lines = [f"data: {json.dumps(p)}\n\n".encode() for p in pieces]
        self._stream(handler, [*lines, b"data: [DONE]\n\n"], False)

    def _pieces_of(self, body: Json, answer: Answer) -> Iterator[Json]:
        base = {"id": f"chat-{len(self.asked)}", "object": "chat.completion.chunk", "created": 0,
                "model": body["model"]}  # fmt: skip

        def piece(delta: Json, reason: str | None = None) -> Json:
            return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        yield piece({"role": "assistant", "content": ""})
        number = 0
        for block in answer.blocks:
            if block["type"] == "text":
                yield from (piece({"content": part}) for part in _pieces(block["text"]))
                continue
            function = {"name": block["name"], "arguments": ""}
            yield piece({"tool_calls": [{"index": number, "id": f"call_{self._next_call()}", "type": "function",
                                         "function": function}]})  # fmt: skip
            written = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
            for part in _pieces(written):
                yield piece({"tool_calls": [{"index": number, "function": {"arguments": part}}]})
            number += 1
        reasons = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
        yield piece({}, reasons[answer.stop])
        if self.counts and body.get("stream_options", {}).get("include_usage"):
            asked, replied = len(json.dumps(body["messages"])) // 4, len(json.dumps(answer.blocks)) // 4
            usage = {"prompt_tokens": asked, "completion_tokens": replied, "total_tokens": asked + replied,
                     "prompt_tokens_details": {"cached_tokens": asked // 2}}  # fmt: skip
            yield base | {"choices": [], "usage": usage}


def _pieces(words: str, length: int = 7) -> list[str]:
    return [words[start : start + length] for start in range(0, len(words), length)]


def _unanswered(messages: list[Json]) -> str | None:
    """What the real API answers a conversation that is none."""
    before: set[str] = set()
    side = "assistant"
    for number, message in enumerate(messages):
        if message["role"] == side:
            return f"messages.{number}: roles must alternate"
        side = message["role"]
        answered = {block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"}
        if before - answered:
            return f"messages.{number}: tool_use ids without tool_result: {', '.join(sorted(before - answered))}"
        if answered - before:
            return f"messages.{number}: unexpected tool_use_id: {', '.join(sorted(answered - before))}"
        before = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
        if not message["content"] or any(b["type"] == "text" and not b["text"] for b in message["content"]):
            return f"messages.{number}: text content blocks must be non-empty"
    if not messages or messages[-1]["role"] != "user":
        return "the last message must be the user's"
    return None
