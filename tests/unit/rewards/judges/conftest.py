"""A real chat endpoint on 127.0.0.1 that answers as it is told, or from the pixels that it is sent."""

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

FAST = {"backoff_seconds": 0.01, "deadline_seconds": 10.0, "attempt_seconds": 5.0}


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drip_seconds: float = 0.0
    claims: int | None = None


def chat(text: str | None, *, finish: str = "stop", logprobs: list[dict[str, Any]] | None = None) -> Reply:
    """Return a chat completion as vLLM sends it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
        "logprobs": None if logprobs is None else {"content": logprobs},
    }
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def frames_of(body: Mapping[str, Any]) -> list[np.ndarray]:
    """Decode the frames of a request, whichever way they travelled."""
    frames = []
    for part in body["messages"][0]["content"][:-1]:
        url = part[part["type"]]["url"]
        head, _, data = url.partition("base64,")
        assert head in ("data:image/jpeg;", "data:image/png;", "data:video/jpeg;")
        frames += [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in data.split(",")]
    return frames


def text_of(body: Mapping[str, Any]) -> str:
    part = body["messages"][0]["content"][-1]
    assert part["type"] == "text"
    return part["text"]


class JudgeServer:
    """Answers with `replies`, one per request and the last one for ever; or with `answer(body)`."""

    fast = FAST
    reply = Reply
    chat = staticmethod(chat)
    frames_of = staticmethod(frames_of)
    text_of = staticmethod(text_of)

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.answer: Callable[[dict[str, Any]], Reply] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_open = 0
        self._open = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner._serve(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            reply = None
            if self.answer is None:
                reply = self.replies[min(len(self.bodies), len(self.replies) - 1)]
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.paths.append(handler.path)
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        try:
            reply = reply or self.answer(body)
            time.sleep(reply.seconds)
        finally:
            with self._lock:  # before the client can have the answer, and ask again
                self._open -= 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has given up, as it should
            self._write(handler, reply)

    def _write(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body) if reply.claims is None else reply.claims))
        handler.end_headers()
        if reply.drip_seconds == 0:
            handler.wfile.write(reply.body)
            return
        for i in range(len(reply.body)):
            handler.wfile.write(reply.body[i : i + 1])
            handler.wfile.flush()
            time.sleep(reply.drip_seconds)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    judge = JudgeServer()
    yield judge
    judge.stop()


@pytest.fixture(scope="module")
def module_server() -> Iterator[JudgeServer]:
    judge = JudgeServer()
    yield judge
    judge.stop()
