"""A model on a server that speaks the OpenAI-compatible API: the same events as a local one."""

import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tui_chat.engine.base import EngineError, PollSettings
from tui_chat.engine.reasoning import Piece
from tui_chat.engine.running_reply import figures_line
from tui_chat.engine.server_counts import PromptCounts
from tui_chat.engine.server_faults import (
    LONGEST_WAIT_SECONDS,
    RequestRefused,
    ServerError,
    no_api_error,
)
from tui_chat.engine.server_http import Exchange, Head, IsCancelled, RequestLeft, ServerClient
from tui_chat.engine.server_probe import ServerFacts
from tui_chat.engine.server_reply import ReplyReader
from tui_chat.engine.server_request import (
    chat_body,
    continues_reply,
    has_control_tokens,
    refused_parameters,
    without,
)
from tui_chat.engine.server_sse import MOST_EVENT_BYTES, EventParser, EventTooLong
from tui_chat.servers import is_local
from tui_chat.types import (
    EngineEvent,
    EngineNotice,
    FinishReason,
    GenerationFinished,
    GenerationSettings,
    MemoryUse,
    Message,
    PrefillProgress,
    ReplyMetrics,
    Rung,
    TextDelta,
)

logger = logging.getLogger(__name__)

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before the same request is made again, where the server does not ask for another."""
DEFAULT_WINDOW = 8192
LOCK_POLL_SECONDS = 0.05
CLOSE_WAIT_SECONDS = 5.0
AFTER_END_SECONDS = 2.0
"""How long the counts are waited for once the reply is complete."""
_CONTINUATION = frozenset({"continue_final_message", "add_generation_prompt"})


@dataclass(slots=True)
class _Reply:
    """One reply while it is written."""

    reader: ReplyReader
    estimate: int = 0
    """Tokens of its prompt, as counted before it was sent."""
    started: float = 0.0
    """When the request was sent that the server took; 0.0 before."""
    first: float = 0.0
    """When its first text came; 0.0 before."""
    last: float = 0.0

    def events(self, data: str) -> list[EngineEvent]:
        """What the data of one event of the server comes to."""
        return [
            self._delta(found) if isinstance(found, Piece) else found
            for found in self.reader.push(data)
        ]

    def rest(self) -> list[EngineEvent]:
        """The text that was held back."""
        return [self._delta(piece) for piece in self.reader.finish()]

    def metrics(self) -> ReplyMetrics:
        """The figures at the end, or as far as it came."""
        counts = self.reader.counts
        tokens, approximate = self.reader.tokens
        prompt = self.estimate if counts.prompt_tokens is None else counts.prompt_tokens
        until = self.first or time.perf_counter()
        return ReplyMetrics(
            prompt_tokens=prompt,
            cached_tokens=min(counts.cached_tokens or 0, prompt),
            completion_tokens=tokens,
            prefill_seconds=until - self.started if self.started else 0.0,
            decode_seconds=self.last - self.first,
            drafted_tokens=counts.drafted_tokens or 0,
            approximate=approximate or counts.prompt_tokens is None,
        )

    def _delta(self, piece: Piece) -> TextDelta:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        tokens, approximate = self.reader.tokens
        return TextDelta(piece.text, piece.kind, tokens, self.last - self.first, approximate)


class ServerEngine:
    """An `Engine` on a server; see `tui_chat.engine.base.Engine` for the contract."""

    revision = ""
    precision = None
    dtype = ""
    rungs: tuple[Rung, ...] = ()
    counts_here = False

    def __init__(
        self,
        client: ServerClient,
        model: str,
        facts: ServerFacts,
        window_limit: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`window_limit` is the most that the user allows, whatever the server has."""
        server = client.server
        self.name = model.rstrip("/").rpartition("/")[2] if model.startswith("/") else model
        self.device = f"server:{server.name}"
        self.tokenizer_id = f"{self.device}/{model}"
        self._client = client
        self._model = model
        self._dialect = facts.dialect
        self._counts = PromptCounts(client, model, facts.dialect)
        self._refused: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        told = server.context_window or facts.context_window
        limits = [size for size in (told, window_limit) if size]
        self.context_window = min(limits, default=DEFAULT_WINDOW)
        self.notes = notes
        if client.has_key and server.url.startswith("http:") and not is_local(server.url):
            self.notes += (f"The key goes to {server.url} unencrypted; https would protect it.",)
        if not limits:
            self.notes += (
                f"The server does not tell its context window; {DEFAULT_WINDOW:,} tokens are "
                "assumed, and --context sets another.",
            )

    @property
    def exact_counts(self) -> bool:
        """Whether the server counts the tokens of a prompt."""
        return self._counts.exact

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Length of the prompt, exact where the server counts; from any thread.

        Raises:
            EngineError: a reply at the end cannot be continued on this server.
        """
        self._check_continuation(messages)
        return self._counts.count(messages, thinking)

    def count_cached(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """0: a server tells only afterwards what it had in its cache."""
        return 0

    def can_take_back(self, tokens: int) -> bool:
        """False: it is the server's cache, and a request that nobody asked for may cost money."""
        return False

    def count_message(self, message: Message) -> int:
        """About what one message adds to a prompt."""
        return self._counts.of_message(message)

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        """Have the server write the reply to `messages`; see `Engine.stream`."""

        def is_cancelled() -> bool:
            return cancel.is_set() or self._closing.is_set()

        reply = _Reply(ReplyReader(continues=continues_reply(messages)))
        while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
            if is_cancelled():
                yield GenerationFinished("cancelled", reply.metrics())
                return
        try:
            reason: FinishReason = "error"
            error = ""
            chosen = settings()
            try:
                reason = yield from self._generate(reply, messages, chosen, is_cancelled)
            except RequestLeft:
                reason = "cancelled"
            except EngineError as fault:
                error = self._client.without_key(str(fault))
            except Exception as fault:
                logger.exception("the reply of the server could not be read")
                error = f"The reply could not be read ({type(fault).__name__}); ask again."
            metrics = reply.metrics()
            logger.info("Reply (%s): %s", reason, figures_line(metrics))
            told = reply.reader.counts.prompt_tokens
            if told is not None and not self._counts.learn(messages, chosen.thinking, told):
                yield from self._tell(
                    "The server counts prompts in another way than it told; counts are estimates "
                    "from now on."
                )
            yield GenerationFinished(reason, metrics, error=error)
        finally:
            self._lock.release()

    def memory(self) -> MemoryUse | None:
        """None: it is the server's."""
        return None

    def close(self) -> None:
        """End a running reply and close the connections."""
        self._closing.set()
        held = self._lock.acquire(timeout=CLOSE_WAIT_SECONDS)
        self._client.close()
        if held:
            self._lock.release()

    def _generate(
        self,
        reply: _Reply,
        messages: Sequence[Message],
        settings: GenerationSettings,
        is_cancelled: IsCancelled,
    ) -> Generator[EngineEvent, None, FinishReason]:
        """The events of one reply up to its end; fills `reply` and returns why it ended."""
        if self._closing.is_set():
            raise EngineError("The server was left; choose a model with Ctrl+L.")
        reply.estimate = self.count_tokens(messages, settings.thinking)
        body, missing = chat_body(self._model, messages, settings, self._dialect)
        for name in missing:
            yield from self._tell(f"This server has no parameter {name}; replies are made without.")
        if has_control_tokens(messages):
            yield from self._tell(
                "A text of this chat looks like control tokens, and a server may take it for them; "
                "only a model in this process is safe from that."
            )
        yield PrefillProgress(0, reply.estimate)
        exchange, head = yield from self._begin(reply, body, is_cancelled)
        try:
            yield from self._read(reply, exchange, head, is_cancelled)
        finally:
            exchange.leave()
        return reply.reader.reason()

    def _begin(
        self, reply: _Reply, body: dict[str, Any], is_cancelled: IsCancelled
    ) -> Generator[EngineEvent, None, tuple[Exchange, Head]]:
        """Send the request until the server takes it: again where it is busy, and without the
        parameters that it refuses."""
        silence = self._client.server.first_token_seconds
        waits = iter(BACK_OFF_SECONDS)
        while True:
            sent = without(body, self._refused)
            reply.started = time.perf_counter()
            try:
                return self._client.begin_reply(sent, is_cancelled, silence)
            except RequestRefused as fault:
                refused = refused_parameters(fault, sent)
                if not refused:
                    raise
                self._refused |= refused
                if refused & _CONTINUATION:
                    raise EngineError(self._cannot_continue) from fault
                names = ", ".join(sorted(refused))
                yield from self._tell(f"The server refuses {names}; replies are made without.")
            except ServerError as fault:
                wait = fault.wait_seconds or next(waits, None)
                if not fault.passing or wait is None or wait > LONGEST_WAIT_SECONDS:
                    raise
                yield EngineNotice(f"{fault.why}; asking again in {wait:g} s", passing=True)
                _pause(wait, is_cancelled)
                yield PrefillProgress(0, reply.estimate)

    def _read(
        self, reply: _Reply, exchange: Exchange, head: Head, is_cancelled: IsCancelled
    ) -> Generator[EngineEvent, None, None]:
        """The events of an answer as it comes; before an error comes all the text there is."""
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.endswith("html"):
            raise no_api_error(self._client.server)
        try:
            if kind == "application/json":  # of a server that does not stream
                answer = bytearray()
                for data in self._answer(reply, exchange, is_cancelled):
                    answer += data
                    if len(answer) > MOST_EVENT_BYTES:
                        raise EventTooLong
                yield from reply.events(answer.decode("utf-8", "replace"))
                reply.reader.ended = True
            else:
                parser = EventParser()
                for data in self._answer(reply, exchange, is_cancelled):
                    for event in parser.push(data):
                        yield from reply.events(event)
                for event in parser.finish():
                    yield from reply.events(event)
        except EventTooLong:
            raise no_api_error(self._client.server) from None
        except EngineError:
            yield from reply.rest()
            raise
        yield from reply.rest()

    def _answer(
        self, reply: _Reply, exchange: Exchange, is_cancelled: IsCancelled
    ) -> Iterator[bytes]:
        """The bytes of an answer, up to its end, or to the end of the reply in it."""
        server, reader = self._client.server, reply.reader
        while True:
            silence = server.between_tokens_seconds if reply.first else server.first_token_seconds
            if reader.is_complete:
                silence = min(AFTER_END_SECONDS, silence)
            try:
                data = exchange.next(is_cancelled, silence)
            except ServerError:
                if reader.is_complete:
                    return
                raise
            if data is None:
                return
            if isinstance(data, bytes):
                yield data

    def _tell(self, sentence: str) -> Iterator[EngineNotice]:
        """Say something once."""
        if sentence not in self._told:
            self._told.add(sentence)
            yield EngineNotice(sentence)

    def _check_continuation(self, messages: Sequence[Message]) -> None:
        if not continues_reply(messages):
            return
        if not self._dialect.continuation or self._refused & _CONTINUATION:
            raise EngineError(self._cannot_continue)
        if not messages[-1].content:
            raise EngineError(
                "A reply that was stopped while the model was thinking cannot be continued on a "
                "server; write it again."
            )

    @property
    def _cannot_continue(self) -> str:
        name = self._client.server.name
        return f"The server {name} cannot go on with a reply; ask for the rest in a new message."


def _pause(seconds: float, is_cancelled: IsCancelled) -> None:
    """Wait, but not for someone who has left.

    Raises:
        RequestLeft: `is_cancelled` said so.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if is_cancelled():
            raise RequestLeft("The request was cancelled.")
        time.sleep(min(left, LOCK_POLL_SECONDS))
