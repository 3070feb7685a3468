"""A Hub on loopback that refuses, in the words and headers of the real one, so that the libraries say what they say.

Status codes and the header X-Error-Code are those that huggingface_hub reads in `hf_raise_for_status`.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

ANSWERS: dict[str, tuple[int, str, str]] = {
    "gated": (403, "GatedRepo", "Access to model is restricted and you are not in the authorized list."),
    "unauthorized": (401, "RepoNotFound", "Invalid username or password."),
    "rate_limited": (429, "", "We had to rate limit you. Retry after 280 seconds (0/1000 requests remaining)."),
}


class HubStub:
    """Listens from `with` on; `address` is what HF_ENDPOINT should be."""

    def __init__(self, answer: str) -> None:
        status, code, words = ANSWERS[answer]

        class Refusing(BaseHTTPRequestHandler):
            def _refuse(self) -> None:
                body = words.encode()
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", words)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = _refuse

            def log_message(self, format: str, *arguments: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> HubStub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
