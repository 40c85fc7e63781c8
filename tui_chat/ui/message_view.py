"""One reply on the page: reasoning, streamed Markdown, the line under it.

Imported when the first reply is shown: the Markdown machinery would delay the first frame.
"""

import time
from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Vertical

from tui_chat.chat.sanitize import sanitize
from tui_chat.types import Message, ReplyMetrics
from tui_chat.ui.driver import typing_of
from tui_chat.ui.ground import Ground
from tui_chat.ui.ink import InkText, Line, OneLine, Part, seconds, turn_marks
from tui_chat.ui.markdown_pieces import VerbatimPieces
from tui_chat.ui.pace import LOCAL, Pace
from tui_chat.ui.rows_view import RowsView

PAINT_SHARE = 100
"""A stream is painted again after this many times the CPU time that its last paint took: the
painting then takes about a hundredth of the time from the thread that generates."""
MAX_PAINT_INTERVAL = 1.0


class Reply(RowsView):
    """The Markdown of a reply."""


class Reasoning(Vertical, can_focus=False):
    """What the model thought, folded to one line until it is clicked or opened while walking.

    Without focus: who goes on typing means the box.
    """

    def __init__(self) -> None:
        super().__init__(classes="reasoning")
        self._head = OneLine()
        self._body = RowsView(make_pieces=VerbatimPieces, classes="reasoning-text")
        self._body.display = False
        self.label = "thinking"

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._body

    async def append(self, text: str) -> None:
        """Show more of it."""
        await self._body.append(text)

    def update_label(self, label: str) -> None:
        """What stands in the line."""
        self.label = label
        size = ""
        if label != "thinking":  # it is complete
            count = len(self._body.source.split())
            size = f" · {count:,} word{'s' * (count != 1)}"
        self._head.show([[("m", f"{'▾' if self._body.display else '▸'} {label}{size}")]])

    @property
    def is_open(self) -> bool:
        """Whether all of it is shown."""
        return bool(self._body.display)

    def toggle(self) -> None:
        """Open it, or fold it again."""
        self._body.display = not self._body.display
        self.update_label(self.label)

    def on_click(self) -> None:
        if self.screen.get_selected_text() is None:
            self.toggle()


def metrics_lines(message: Message, prefix: Line = ()) -> list[Line]:
    """What a reply cost, from the whole line to the short one; only the rate in full ink.

    Of a continued reply these are the figures of its last part, after the size of the whole.
    A `prefix` tells that size already.
    """
    metrics = message.metrics or ReplyMetrics()
    about = "≈" if metrics.approximate else ""
    new = metrics.prompt_tokens - metrics.cached_tokens
    read = brief = f"prefill {about}{new:,} tok"
    if metrics.cached_tokens:
        brief = f"prefill {about}{new:,}+{metrics.cached_tokens:,}"
        of = f"(reused {metrics.cached_tokens:,} of {metrics.prompt_tokens:,})"
        read = f"prefill {about}{new:,} {of}"
    tokenize = ""
    if metrics.tokenize_seconds:  # a server does not tell
        tokenize = f"tokenize {seconds(metrics.tokenize_seconds)} · "
    prefill = seconds(metrics.prefill_seconds)
    prefill_rate = f" {about}{metrics.prompt_tokens_per_second:,.0f} tok/s" if new >= 8 else ""
    written = f"{about}{metrics.completion_tokens:,} tok"
    decode = f"{'decode' if prefix else written} {seconds(metrics.decode_seconds)} · "
    drafted = f"{metrics.drafted_tokens:,} drafted · " if metrics.drafted_tokens else ""
    has_rate = metrics.completion_tokens >= 8 and metrics.tokens_per_second > 0
    rate = f"{about}{metrics.tokens_per_second:,.1f}" if has_rate else "—"
    modes = " then ".join(message.modes) or message.mode or ""
    tail: Line = (("k", f"{rate} tok/s"), ("m", f" · {modes}" if modes else ""))
    whole, short = "", "" if prefix else f"{written} · "
    if message.continuations and not prefix:
        parts = f"{message.continuations + 1} parts"
        if message.token_count is not None:
            parts = f"{about}{message.token_count:,} tok in {parts}"
        whole, short = f"{parts}, the last: ", f"{parts} · "
    total = f"total {seconds(metrics.total_seconds)} · "
    why = f" ({metrics.cache_note})" if metrics.cache_note else ""
    heads: tuple[str, ...] = (
        f"{whole}{tokenize}{read}{why} {prefill}{prefill_rate} · {decode}{drafted}{total}",
        f"{whole}{read}{why} {prefill} · {decode}",
        f"{read}{why} · {short}",
    ) * bool(why)
    heads += (
        f"{whole}{tokenize}{read} {prefill}{prefill_rate} · {decode}{drafted}{total}",
        f"{whole}{tokenize}{read} {prefill} · {decode}{drafted}{total}",
        f"{whole}{tokenize}{read} {prefill} · {decode}{total}",
        f"{whole}{tokenize}{read} {prefill} · {decode}",
    )
    if not message.continuations:
        heads += (
            f"{tokenize}{brief} {prefill} · {decode}",
            f"{tokenize}{brief.removeprefix('prefill ')} {prefill} · {decode}",
        )
    heads += (
        f"{whole}{read} {prefill} · {decode}",
        f"{read} {prefill} · {short}",
        f"{read} · {short}",
        short,
    )
    return [[*prefix, ("m", head), *tail] for head in heads]


def foot_lines(message: Message, key: Callable[[str], str] | None) -> list[Line]:
    """The line under a finished reply: its figures, or how it ended and what can be done.

    `key` gives the shown key of an action; None under a reply that is not the last one.
    """
    metrics = message.metrics or ReplyMetrics()
    offers: list[Part] = []
    if key is not None and message.can_continue:
        offers += [("k", key("continue")), ("m", " continue")]
    if key is not None and message.finish_reason != "length":
        offers += ["  "] * bool(offers) + [("k", key("regenerate")), ("m", " again")]
    dot: Line = (("m", " · "),) if offers else ()
    tokens = message.token_count or metrics.completion_tokens
    count = f"{'≈' if metrics.approximate else ''}{tokens:,} tok"
    match message.status, message.finish_reason:
        case "failed", _:
            return [(("err", f"× {message.error}"), "\n" * bool(offers), *offers)]
        case "interrupted", "repetition":
            head = f"■ stopped after {count}: it repeated itself"
            return [(("warn", head), *dot, *offers)]
        case "interrupted", _:
            head = f"■ stopped after {count}" if tokens else "■ stopped"
            kept: Part = ("m", " · kept, and sent with the next prompt")
            told: Line = (("warn", head), *dot, *offers)
            short: list[Line] = [told, (("warn", head),)]
            # Without an answer there is nothing to send.
            return [(("warn", head), kept, *dot, *offers), *short] if message.content else short
        case _, "length":
            cut: Line = (("warn", f"cut at {count}"), *dot, *offers)
            return [*metrics_lines(message, (*cut, ("m", " · "))), cut]
        case _, None if message.metrics is None:  # edited, or from another program
            return [offers]
    return metrics_lines(message)


class AssistantTurn(Ground):
    """A reply: reasoning, Markdown and the line under it; streamed or complete."""

    def __init__(
        self,
        *,
        message_id: str,
        first_fence: int,
        key: Callable[[str], str],
        pace: Pace = LOCAL,
    ) -> None:
        """`key` gives the shown key of an action, for what the line under the reply offers."""
        super().__init__(classes="assistant-turn")
        self.message_id = message_id
        self._key: Callable[[str], str] | None = key
        self._reasoning_started = 0.0
        self._reasoning = Reasoning()
        self._reasoning.display = False
        self._reply = Reply(first_code_number=first_fence + 1)
        self._foot = OneLine(classes="foot")
        self._foot.display = False
        self._fresh = ""
        """Text that is not painted yet."""
        self._fresh_reasoning = ""
        self._pace = pace
        self._painted: tuple[float, float] | None = None
        """When the last paint of the stream began, and the CPU time of the loop until then."""
        self._scheduled = False
        self._message: Message | None = None
        self._version = (1, 1)
        self.on_paint: Callable[[], None] | None = None
        """Called when more of a stream was painted."""

    @classmethod
    def of(
        cls, message: Message, *, first_fence: int, key: Callable[[str], str]
    ) -> "AssistantTurn":
        """The view of a reply that is complete."""
        view = cls(message_id=message.id, first_fence=first_fence, key=key)
        view._message = message
        view._fresh_reasoning = sanitize(message.reasoning)
        return view

    def compose(self) -> ComposeResult:
        yield self._reasoning
        yield self._reply
        yield self._foot

    async def on_mount(self) -> None:
        if self._message is not None:
            await self._paint_reasoning()
            await self._reply.show(sanitize(self._message.content))
            self._show_end(self._message)

    def mark_hits(self, words: tuple[str, ...]) -> None:
        """Mark the folded `words` of a search in the text; none takes the marks away."""
        self._reply.mark_hits(words)

    @property
    def code_count(self) -> int:
        """How many code blocks there are in the reply."""
        return self._reply.code_count

    @property
    def is_laid_out(self) -> bool:
        """Whether all rows are where they will be."""
        return self._reply.is_laid_out

    def hit_rows(self) -> list[int]:
        """The rows of the turn with marks, from the top."""
        top = self._reply.virtual_region.y
        return [top + row for row in self._reply.hit_rows()]

    def feed(self, text: str) -> None:
        """More of the reply; painted soon, as often as the painting stays cheap."""
        self._fresh += sanitize(text)
        self._schedule()

    def feed_reasoning(self, text: str) -> None:
        """More of what the model thinks before it answers."""
        if not self._reasoning_started:
            self._reasoning_started = time.monotonic()
        self._fresh_reasoning += sanitize(text)
        self._schedule()

    async def go_on(self) -> None:
        """Take more text behind what is shown: the reply is continued."""
        self._message = None
        self._foot.display = False
        self._reasoning.remove_class("-alone")
        await self.query(".failed-foot").remove()
        await self._reply.show(self._reply.source, complete=False)

    def mark(self, version: tuple[int, int], left_out: bool) -> None:
        """Say which version of how many this is, and whether it is left out of the context."""
        before = self._version, self.has_class("-left-out")
        self._version = version
        self.set_class(left_out, "-left-out")
        if self._message is not None and self.is_mounted and before != (version, left_out):
            self._show_end(self._message)

    @property
    def reasoning(self) -> Reasoning | None:
        """What the model thought before this reply, if it did."""
        return self._reasoning if self._reasoning.display else None

    def grow_by(self, rows: int) -> None:
        """Let a reply that streams grow by several rows at once, so that the page scrolls less."""
        self._reply.block = max(1, rows)

    def withdraw_offers(self) -> None:
        """Another turn follows, so nothing can be done to this reply any more."""
        if self._key is not None:
            self._key = None
            if self._message is not None and self.is_mounted:
                self._show_end(self._message)

    async def finish(self, message: Message) -> None:
        """Paint all that is left and show how the reply ended."""
        self._message = message
        await self._paint(is_over=True)
        whole = sanitize(message.content)
        if whole == self._reply.source:
            await self._reply.finish()
        else:
            await self._reply.show(whole)
        self._show_end(message)

    def _schedule(self) -> None:
        if self._scheduled or not self.is_attached:
            return
        self._scheduled = True
        wait = 0.0
        if self._painted is not None:
            at, used = self._painted
            # All that the loop did since: the text, its layout and the frame, which comes later.
            cost = time.thread_time() - used
            interval = max(self._pace.paint_seconds, PAINT_SHARE * cost)
            wait = at + min(MAX_PAINT_INTERVAL, interval) - time.monotonic()
        self.set_timer(max(0.001, wait), self._paint_between_keys)

    def _paint_between_keys(self) -> None:
        typing_of(self.app).call(lambda: self.call_next(self._paint_in_time))

    async def _paint_in_time(self) -> None:
        self._scheduled = False
        if self._message is not None:
            return
        self._painted = time.monotonic(), time.thread_time()
        await self._paint()
        if self.on_paint is not None:
            self.on_paint()

    async def _paint(self, *, is_over: bool = False) -> None:
        has_text = bool(self._fresh)
        if has_text:
            fresh, self._fresh = self._fresh, ""
            await self._reply.append(fresh)
        await self._paint_reasoning(has_text or is_over)

    async def _paint_reasoning(self, is_over: bool = False) -> None:
        if fresh := self._fresh_reasoning:
            self._fresh_reasoning = ""
            self._reasoning.display = True
            await self._reasoning.append(fresh)
        if self._reasoning_started and is_over:
            elapsed = time.monotonic() - self._reasoning_started
            self._reasoning_started = 0.0
            self._reasoning.update_label(f"thought for {seconds(elapsed)}")
        elif fresh:
            self._reasoning.update_label("thinking" if self._reasoning_started else "thoughts")

    def _show_end(self, message: Message) -> None:
        marks = turn_marks(self._version, left_out=self.has_class("-left-out"))
        if message.edited:
            marks += ["  "] * bool(marks) + [("m", "edited by you")]
        self._reasoning.set_class(not message.content, "-alone")
        lines = [
            (*marks, *(["  "] if marks and line else []), *line)
            for line in foot_lines(message, self._key)
        ]
        if message.status == "failed":
            # Wrapped: what to do next stands at the end of an error.
            self.query(".failed-foot").remove()
            self.mount(InkText(lines[0], classes="foot failed-foot"))
            return
        self._foot.show(lines)
        self._foot.display = any(lines)
