"""A server on loopback that answers as a test scripts it, rightly or wrongly."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tui_chat.types import ServerSpec

CHAT = "/v1/chat/completions"
EVENTS = "text/event-stream"
Answer = Callable[["Out"], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Out:
    """The way back to the client."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: "FakeServer") -> None:
        self._handler = handler
        self.server = server

    def head(self, status: int = 200, kind: str = EVENTS, **headers: str) -> None:
        """The begin of an answer that ends with the connection."""
        self.raw(
            f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode()
        )
        for name, value in headers.items():
            self.raw(f"{name.replace('_', '-')}: {value}\r\n".encode())
        self.raw(b"\r\n")

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def event(self, data: str) -> None:
        """Send one event."""
        self.raw(f"data: {data}\n\n".encode())

    def until_left(self) -> None:
        """Send nothing more until the client has closed the connection."""
        self._handler.connection.settimeout(20)
        if self._handler.rfile.read(1) == b"":
            self.server.was_left.set()


class FakeServer:
    """Answers the list of models, and requests for a reply with `answers`, the last for ever."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """`tls` makes it an https server."""
        self.answers: list[Answer] = [reply("Hello", " there")]
        self.models: list[dict[str, Any]] = [{"id": "tiny", "owned_by": "test"}]
        self.pages: dict[str, Callable[[Any], Any]] = {}
        """What other paths answer as JSON, from the body of the request."""
        self.asked: list[Asked] = []
        self.was_left = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.handle(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._scheme = "https" if tls else "http"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)

    @property
    def address(self) -> str:
        """Without a path."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    @property
    def chats(self) -> list[Any]:
        """The bodies of the requests for a reply."""
        return [asked.body for asked in self.asked if asked.path == CHAT]

    def spec(self, **changes: Any) -> ServerSpec:
        """The server as the program knows it."""
        return ServerSpec(**({"name": "test", "url": f"{self.address}/v1"} | changes))

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        length = int(handler.headers.get("content-length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.asked.append(Asked(handler.command, handler.path, dict(handler.headers), body))
        out = Out(handler, self)
        try:
            if handler.path == CHAT:
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                answer(out)
            elif handler.path == "/v1/models":
                json_page(200, {"object": "list", "data": self.models})(out)
            elif handler.path in self.pages:
                page = self.pages[handler.path](body)
                (page if callable(page) else json_page(200, page))(out)
            else:
                json_page(404, {"error": {"message": "not found"}})(out)
        except OSError:
            self.was_left.set()

    @contextmanager
    def running(self) -> "Iterator[FakeServer]":
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def chunk(content: str | None = None, **more: Any) -> str:
    """A chunk of a streamed reply."""
    delta = {"content": content} if content is not None else {}
    delta |= {name: more.pop(name) for name in ("reasoning", "reasoning_content") if name in more}
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice], **more})


def usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    """The counts of a reply."""
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    return (
        counts if cached is None else counts | {"prompt_tokens_details": {"cached_tokens": cached}}
    )


def events(*data: str) -> Answer:
    """An answer of these events, then its end."""

    def answer(out: Out) -> None:
        out.head()
        for item in data:
            out.event(item)

    return answer


def reply(*texts: str, finish_reason: str = "stop", counts: Any = None) -> Answer:
    """A whole reply."""
    end = chunk(finish_reason=finish_reason)
    told = [json.dumps({"choices": [], "usage": counts})] if counts else []
    return events(*map(chunk, texts), end, *told, "[DONE]")


def json_page(status: int, data: Any, **headers: str) -> Answer:
    """An answer that is JSON."""
    return page(status, json.dumps(data), "application/json", **headers)


def page(status: int, text: str, kind: str = "text/html", **headers: str) -> Answer:
    """An answer of any kind."""

    def answer(out: Out) -> None:
        out.head(status, kind, **headers)
        out.raw(text.encode())

    return answer


def bytes_of(texts: Sequence[str]) -> bytes:
    """The bytes of a streamed reply of these texts."""
    data = [*map(chunk, texts), chunk(finish_reason="stop"), "[DONE]"]
    return "".join(f"data: {item}\n\n" for item in data).encode()
