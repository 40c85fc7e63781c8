"""HTTP to one server: requests that can be left at any moment, and what their answers mean.

Each request is read by a thread of its own, so that whoever waits for it can leave at once, also
during a name look-up or before the first byte; leaving shuts the connection down, which tells the
server to stop and wakes the thread.
"""

import contextlib
import json
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tui_chat import __version__
from tui_chat.engine.base import EngineError
from tui_chat.engine.server_faults import (
    ServerError,
    connection_error,
    no_api_error,
    redirect_error,
    status_error,
)
from tui_chat.servers import is_local
from tui_chat.types import ServerSpec

CONNECT_SECONDS = 5.0
SEND_SECONDS = 30.0
ANSWER_SECONDS = 30.0
"""After which a question that nobody waits for any more is dropped."""
ERROR_SECONDS = 5.0
"""How long the text of an error is waited for."""
POLL_SECONDS = 0.05
"""How soon a request to leave is noticed while nothing comes."""
MOST_HELD_BYTES = 8_000_000
"""What may have come without being taken; the connection then waits."""
MOST_ERROR_BYTES = 65_536
MOST_ANSWER_BYTES = 32_000_000
MOST_REDIRECTS = 3
HIDDEN = "…"
"""Stands for the key wherever a server repeats it."""

IsCancelled = Callable[[], bool]

# It would log every request, also those that count a draft while it is typed.
logging.getLogger("httpx2").setLevel(logging.WARNING)


class RequestLeft(EngineError):
    """Whoever waited for the answer does not want it any more."""


@dataclass(frozen=True, slots=True)
class Head:
    """The begin of an answer."""

    status: int
    headers: Mapping[str, str]
    url: str


class Exchange:
    """One request on its way, and its answer as it comes."""

    def __init__(self, server: ServerSpec, pool: "Pool", request: httpx2.Request) -> None:
        self._server = server
        self._pool = pool
        self._request = request
        # That of a kept connection, until a new one is made; others may be in use beside it.
        self._socket = pool.last_socket if pool.is_exclusive else None
        self._items: queue.SimpleQueue[Head | bytes | BaseException | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._ahead: list[Head | bytes | BaseException | None] = []
        """What was taken from `_items` and is not yet handed on."""
        self._put_bytes = self._taken_bytes = 0
        self._ended = False
        request.extensions["trace"] = self._trace
        threading.Thread(target=self._run, name="server", daemon=True).start()

    def next(self, is_cancelled: IsCancelled, silence: float) -> Head | bytes | None:
        """What comes next: first the head, then bytes, None at the end.

        Args:
            is_cancelled: asked every `POLL_SECONDS`.
            silence: seconds after which a server that sends nothing is given up.

        Raises:
            RequestLeft: `is_cancelled` said so.
            ServerError: the connection failed, or was silent for too long.
        """
        until = time.monotonic() + silence
        while True:
            if is_cancelled():
                raise RequestLeft("The request was cancelled.")
            try:
                item = self._ahead.pop() if self._ahead else self._items.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() >= until:
                    raise self._silent(silence) from None
                continue
            if isinstance(item, bytes):
                item = self._with_what_is_there(item)
                self._taken_bytes += len(item)
            elif item is None:
                self._ended = True
            elif isinstance(item, BaseException):
                self._ended = True
                raise connection_error(self._server, item) from item
            return item

    def _with_what_is_there(self, data: bytes) -> bytes:
        """`data` and the bytes behind it that have come already, for fewer and larger pieces."""
        pieces = [data]
        while not self._items.empty():
            item = self._items.get()
            if not isinstance(item, bytes):
                self._ahead.append(item)
                break
            pieces.append(item)
        return b"".join(pieces) if len(pieces) > 1 else data

    def leave(self) -> None:
        """Give the answer up: the connection is shut down unless the answer is complete."""
        self._left.set()
        if not self._ended:
            self._ended = True
            self._hang_up()

    def _silent(self, silence: float) -> ServerError:
        sentence = f"The server {self._server.name} sent nothing for {silence:g} s."
        return ServerError(sentence, is_silence=True)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._pool.http.send(self._request, stream=True)) as response:
                self._note(response.extensions.get("network_stream"))
                head = Head(response.status_code, response.headers, str(response.url))
                self._items.put(head)
                for data in response.iter_bytes():
                    self._items.put(data)
                    self._put_bytes += len(data)
                    while self._put_bytes - self._taken_bytes > MOST_HELD_BYTES:
                        if self._left.wait(POLL_SECONDS):
                            return
            self._items.put(None)
        except Exception as fault:
            self._items.put(fault)

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore at each step; it tells of a new connection before it is used."""
        if name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._note(info.get("return_value"))

    def _note(self, stream: Any) -> None:
        """Remember the connection that is in use; it is not wanted any more if we were left."""
        if stream is not None and hasattr(stream, "get_extra_info"):
            self._socket = self._pool.last_socket = stream.get_extra_info("socket")
        if self._left.is_set():
            self._hang_up()
            raise RequestLeft("The request was cancelled.")

    def _hang_up(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):
                # Not the method of an SSL socket, which would change what the reader uses.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@dataclass(slots=True)
class Pool:
    """Connections that are kept open between requests, and the one that was used last."""

    http: httpx2.Client
    is_exclusive: bool
    """Whether there is one exchange at a time."""
    last_socket: socket.socket | None = None


class ServerClient:
    """The way to one server. One reply at a time; `ask` may be called beside it."""

    def __init__(self, server: ServerSpec, key: str = "") -> None:
        """`key` goes to the host of `server` alone.

        Raises:
            ServerError: the proxy of the environment cannot be used.
        """
        self.server = server
        self._key = key
        self._origin = _origin(server.url)
        try:
            tls = _tls(server.url)
            self._replies = Pool(self._open(tls, None), is_exclusive=True)
            self._questions = Pool(self._open(tls, ANSWER_SECONDS), is_exclusive=False)
        except OSError as fault:
            raise ServerError(
                f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read "
                f"({fault.strerror or type(fault).__name__})."
            ) from fault
        except (ImportError, ValueError, httpx2.InvalidURL) as fault:
            raise ServerError(
                "The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used."
            ) from fault

    @property
    def root(self) -> str:
        """The address without its `/v1`, where servers have what is not part of the API."""
        return self.server.url.removesuffix("/v1")

    def begin_reply(
        self, body: Mapping[str, Any], is_cancelled: IsCancelled, silence: float
    ) -> tuple[Exchange, Head]:
        """Ask for a reply and wait for the head of a successful answer.

        Args:
            body: of the request, as JSON.
            is_cancelled, silence: as for `Exchange.next`.

        Raises:
            RequestLeft, ServerError: as `Exchange.next`, and for answers that are no success.
        """
        url = f"{self.server.url}/chat/completions"
        return self._begin(self._replies, url, body, is_cancelled, silence)

    def _begin(
        self,
        pool: Pool,
        url: str,
        body: Mapping[str, Any] | None,
        is_cancelled: IsCancelled,
        silence: float,
    ) -> tuple[Exchange, Head]:
        model = str((body or {}).get("model", ""))
        for _ in range(MOST_REDIRECTS + 1):
            exchange = self._send(pool, url, body)
            try:
                head = exchange.next(is_cancelled, silence)
                if not isinstance(head, Head):
                    raise no_api_error(self.server)
                if 200 <= head.status < 300:
                    return exchange, head
                if not 300 <= head.status < 400:
                    text = self.without_key(_start_of(exchange, is_cancelled))
                    raise status_error(self.server, head.status, head.headers, text, model=model)
                target = self._target(head)
            except BaseException:
                exchange.leave()
                raise
            exchange.leave()
            url = target
        raise redirect_error(self.server, url)

    def ask(
        self,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        is_cancelled: IsCancelled = lambda: False,
        seconds: float,
    ) -> Any:
        """The JSON that the server answers with; `body` is sent with POST, None asks with GET.

        Raises:
            RequestLeft, ServerError: as `begin_reply`; or the answer is no JSON.
        """
        exchange, _ = self._begin(self._questions, url, body, is_cancelled, seconds)
        parts: list[bytes] = []
        size = 0
        try:
            while data := exchange.next(is_cancelled, seconds):
                parts.append(data if isinstance(data, bytes) else b"")
                size += len(parts[-1])
                if size > MOST_ANSWER_BYTES:
                    raise no_api_error(self.server)
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            raise no_api_error(self.server) from None
        finally:
            exchange.leave()

    @property
    def has_key(self) -> bool:
        """Whether the server is sent a key."""
        return bool(self._key)

    def without_key(self, text: str) -> str:
        """A text of the server, without the key that it may repeat."""
        return text.replace(self._key, HIDDEN) if self._key else text

    def close(self) -> None:
        """Close the connections that are kept; one in use ends with its exchange."""
        for pool in (self._replies, self._questions):
            with contextlib.suppress(Exception):
                pool.http.close()

    def _open(self, tls: ssl.SSLContext, read_seconds: float | None) -> httpx2.Client:
        headers = {
            "User-Agent": f"tui-chat/{__version__}",
            "Accept-Encoding": "identity",  # a compressing proxy would hold tokens back
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = self.server.url
        return httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(
                None, connect=CONNECT_SECONDS, write=SEND_SECONDS, read=read_seconds
            ),
            follow_redirects=False,
            verify=tls,
            # No proxy for this machine, whatever the environment says.
            mounts={f"all://{_host(url)}": None} if is_local(url) else None,
        )

    def _send(self, pool: Pool, url: str, body: Mapping[str, Any] | None) -> Exchange:
        if body is None:
            return Exchange(self.server, pool, pool.http.build_request("GET", url))
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        request = pool.http.build_request("POST", url, content=content, headers=headers)
        return Exchange(self.server, pool, request)

    def _target(self, head: Head) -> str:
        """Where the server sends us on to, which must be its own host."""
        try:
            target = httpx2.URL(head.url).join(head.headers.get("location", ""))
        except httpx2.InvalidURL:
            raise redirect_error(self.server, "an address that cannot be read") from None
        if _origin(str(target)) != self._origin:
            raise redirect_error(self.server, f"{target.scheme}://{target.netloc.decode()}")
        return str(target)


def _start_of(exchange: Exchange, is_cancelled: IsCancelled) -> str:
    """The begin of a body, as far as it comes in time."""
    return b"".join(_pieces(exchange, is_cancelled)).decode("utf-8", "replace")


def _pieces(exchange: Exchange, is_cancelled: IsCancelled) -> Iterator[bytes]:
    size = 0
    with contextlib.suppress(ServerError):
        while (data := exchange.next(is_cancelled, ERROR_SECONDS)) and size < MOST_ERROR_BYTES:
            if isinstance(data, bytes):
                size += len(data)
                yield data


def _tls(url: str) -> ssl.SSLContext:
    """Trusts what the system and SSL_CERT_FILE trust; nothing where TLS is not spoken."""
    if url.startswith("http:") and is_local(url):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the authorities takes 0.1 s
    return httpx2.create_ssl_context()


def _host(url: str) -> str:
    """The host of an address, as addresses write it."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what a key belongs to."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
