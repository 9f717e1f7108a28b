"""An OpenAI-compatible server that behaves as badly as it is told to. Standard library only; 127.0.0.1, a free port."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(self, json.loads(body))

    def do_GET(self) -> None:
        self.server.take(self, {})

    def log_message(self, *args: object) -> None:
        """Silence: the tests look at `requests`."""

    def send(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Stub(ThreadingHTTPServer):
    """Answers request n by steps[n], the last one for ever; or by `decide(body)`, which returns a step."""

    daemon_threads = True

    def __init__(self, *steps: Step, decide: Callable[[dict[str, Any]], Step] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps, self.decide = list(steps), decide
        self.requests: list[dict[str, Any]] = []
        self.released = threading.Event()  # lets slow steps end when the test does
        self._lock = threading.Lock()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request["body"] for request in self.requests]

    def take(self, handler: Handler, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append({"path": handler.path, "headers": dict(handler.headers), "body": body})
            step = self.decide(body) if self.decide else self.steps[min(len(self.requests), len(self.steps)) - 1]
        step(handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests are about."""


@contextmanager
def stub(*steps: Step, decide: Callable[[dict[str, Any]], Step] | None = None) -> Iterator[Stub]:
    server = Stub(*steps, decide=decide)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None = "我在听。", **fields: Any) -> dict[str, Any]:
    """The body of a chat completion; a field given by name replaces its own."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "toy-1",
        "system_fingerprint": "fp_a",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        **fields,
    }


def says(text: str | None = "我在听。", *, headers: dict[str, str] | None = None, **fields: Any) -> Step:
    body = json.dumps(completion(text, **fields)).encode()
    return lambda handler: handler.send(200, body, x_request_id="req-1", **(headers or {}))


def finishes(reason: str, text: str | None = "我在", **message: Any) -> Step:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **message}}
    return says(choices=[choice])


def fails(status: int, *, headers: dict[str, str] | None = None, **error: Any) -> Step:
    body = json.dumps({"error": {"message": "No.", **error}}).encode()
    return lambda handler: handler.send(status, body, x_request_id="req-9", **(headers or {}))


def sends(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Step:
    return lambda handler: handler.send(status, body, content_type, **headers)


def redirects(url: str, status: int = 307) -> Step:
    return lambda handler: handler.send(status, b"", Location=url)


def resets(handler: Handler) -> None:
    """End the connection with a RST, before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())
    handler.close_connection = True


def cuts(handler: Handler) -> None:
    """Promise a whole body and send half of it."""
    body = json.dumps(completion()).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def cuts_unannounced(handler: Handler) -> None:
    """Send half of a body whose length nobody was told."""
    body = json.dumps(completion()).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def waits(handler: Handler) -> None:
    """Never answer, until the test is over."""
    handler.server.released.wait(30)
    handler.close_connection = True


def drips(handler: Handler) -> None:
    """Send a byte now and then, so that no single read times out."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    while not handler.server.released.wait(0.03):
        handler.wfile.write(b" ")


def chunk(text: str | None = None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "toy-1", "choices": choices, **fields}


def streams(*parts: dict[str, Any] | str, is_whole: bool = True) -> Step:
    """Server-sent events; is_whole False ends the connection where the next chunk would be."""

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("x-request-id", "req-2")
        handler.end_headers()
        for part in parts:
            data = f"data: {part if isinstance(part, str) else json.dumps(part)}\n\n".encode()
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        if is_whole:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True

    return step
