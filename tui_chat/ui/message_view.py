"""One reply on the page: reasoning, streamed Markdown, the line under it.

Imported when the first reply is shown: the Markdown machinery would delay the first frame.
"""

import re
import time
from collections.abc import Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Markdown

from tui_chat.chat.sanitize import sanitize
from tui_chat.types import Message, ReplyMetrics
from tui_chat.ui.ink import InkText, Line, OneLine, Part, seconds
from tui_chat.ui.markdown_blocks import Reply

PAINT_SHARE = 30
"""A stream is painted again after this many times the CPU time that its last paint took: the
painting then takes at most a thirtieth of the time from the thread that generates."""
MIN_PAINT_INTERVAL = 0.1
MAX_PAINT_INTERVAL = 1.0

HEAVY_BLOCK_LINES = 150
HEAVY_BLOCK_CHARS = 20_000
_LINK_DEFINITION = re.compile(r"^ {0,3}\[[^\]\n]+\]:\s", re.MULTILINE)


class Reasoning(InkText, can_focus=True):
    """What the model thought, folded to one line until it is clicked or opened with Enter."""

    BINDINGS = [("enter", "unfold", "unfold")]

    def __init__(self) -> None:
        super().__init__(classes="reasoning")
        self._text = ""
        self._label = "thinking"
        self._open = False

    def update_text(self, text: str, label: str) -> None:
        """Show `text` (when open) under `label`."""
        self._text, self._label = text, label
        self._paint()

    def action_unfold(self) -> None:
        self._open = not self._open
        self._paint()

    def on_click(self) -> None:
        self.action_unfold()

    def _paint(self) -> None:
        parts: list[Part] = [("m", f"{'▾' if self._open else '▸'} {self._label}")]
        if self._open:
            body = "\n".join(f"│ {line}" for line in self._text.strip().split("\n"))
            parts.append(("m", f"\n{body}"))
        self.show(parts)


def too_heavy(text: str) -> bool:
    """Whether drawing `text` as Markdown could stall the screen: one block is very large."""
    run = 0
    for line in text.split("\n"):
        if len(line) > HEAVY_BLOCK_CHARS:
            return True
        run = run + 1 if line.strip() else 0
        if run > HEAVY_BLOCK_LINES:
            return True
    return False


def metrics_lines(message: Message, prefix: Line = ()) -> list[Line]:
    """What a reply cost, from the whole line to the short one; only the rate in full ink.

    Of a continued reply these are the figures of its last part, after the size of the whole.
    A `prefix` tells that size already.
    """
    metrics = message.metrics or ReplyMetrics()
    new = metrics.prompt_tokens - metrics.cached_tokens
    read = brief = f"prefill {new:,} tok"
    if metrics.cached_tokens:
        brief = f"prefill {new:,}+{metrics.cached_tokens:,}"
        of = f"(reused {metrics.cached_tokens:,} of {metrics.prompt_tokens:,})"
        read = f"prefill {new:,} {of}"
    tokenize = f"tokenize {seconds(metrics.tokenize_seconds)} · "
    prefill = seconds(metrics.prefill_seconds)
    prefill_rate = f" {metrics.prompt_tokens_per_second:,.0f} tok/s" if new >= 8 else ""
    written = f"{metrics.completion_tokens:,} tok"
    decode = f"{'decode' if prefix else written} {seconds(metrics.decode_seconds)} · "
    drafted = f"{metrics.drafted_tokens:,} drafted · " if metrics.drafted_tokens else ""
    rate = f"{metrics.tokens_per_second:.1f}" if metrics.completion_tokens >= 8 else "—"
    modes = " then ".join(message.modes) or message.mode or ""
    tail: Line = (("k", f"{rate} tok/s"), ("m", f" · {modes}" if modes else ""))
    whole, short = "", "" if prefix else f"{written} · "
    if message.continuations and not prefix:
        parts = f"{message.continuations + 1} parts"
        if message.token_count is not None:
            parts = f"{message.token_count:,} tok in {parts}"
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
    if key is not None and message.is_cut:
        offers += [("k", key("continue")), ("m", " continue")]
    if key is not None and message.finish_reason != "length":
        offers += ["  "] * bool(offers) + [("k", key("regenerate")), ("m", " again")]
    dot: Line = (("m", " · "),) if offers else ()
    tokens = message.token_count or metrics.completion_tokens
    count = f"{tokens:,} tok"
    match message.status, message.finish_reason:
        case "failed", _:
            return [(("err", f"× {message.error}"), "  ", *offers)]
        case "interrupted", "repetition":
            head = f"■ stopped after {count}: it repeated itself"
            return [(("warn", head), *dot, *offers)]
        case "interrupted", _:
            head = f"■ stopped after {count}" if tokens else "■ stopped"
            kept: Part = ("m", " · kept, and sent with the next prompt")
            told: Line = (("warn", head), *dot, *offers)
            return [(("warn", head), kept, *dot, *offers), told, (("warn", head),)]
        case _, "length":
            cut: Line = (("warn", f"cut at {count}"), *dot, *offers)
            return [*metrics_lines(message, (*cut, ("m", " · "))), cut]
    return metrics_lines(message)


class AssistantTurn(Vertical):
    """A reply: reasoning, Markdown and the line under it; streamed or complete."""

    def __init__(self, *, message_id: str, first_fence: int, key: Callable[[str], str]) -> None:
        """`key` gives the shown key of an action, for what the line under the reply offers."""
        super().__init__(classes="assistant-turn")
        self.message_id = message_id
        self._key: Callable[[str], str] | None = key
        self._text = ""
        self._reasoning_text = ""
        self._reasoning_started = 0.0
        self._reasoning = Reasoning()
        self._reasoning.display = False
        self._reply = Reply("", first_fence=first_fence)
        self._plain = InkText()
        self._plain.display = False
        self._foot = OneLine(classes="foot")
        self._foot.display = False
        self._painted = 0
        self._interval = 0.0
        self._last_paint = 0.0
        self._scheduled = False
        self._message: Message | None = None

    @classmethod
    def of(
        cls, message: Message, *, first_fence: int, key: Callable[[str], str]
    ) -> "AssistantTurn":
        """The view of a reply that is complete."""
        view = cls(message_id=message.id, first_fence=first_fence, key=key)
        view._message = message
        view._text = sanitize(message.content)
        view._reasoning_text = sanitize(message.reasoning)
        return view

    def compose(self) -> ComposeResult:
        yield self._reasoning
        yield self._reply
        yield self._plain
        yield self._foot

    async def on_mount(self) -> None:
        if self._message is not None:
            await self._show_all()
            self._show_end(self._message)

    def feed(self, text: str) -> None:
        """More of the reply; painted soon, as often as the painting stays cheap."""
        self._text += sanitize(text)
        self._schedule()

    def feed_reasoning(self, text: str) -> None:
        """More of what the model thinks before it answers."""
        if not self._reasoning_started:
            self._reasoning_started = time.monotonic()
        self._reasoning_text += sanitize(text)
        self._schedule()

    async def go_on(self) -> None:
        """Take more text behind what is shown: the reply is continued."""
        self._message = None
        self._foot.display = False
        await self.query(".failed-foot").remove()
        if not self._plain.display:
            # What `update` has parsed, `append` cannot go on with in the middle of a block.
            with self.app.batch_update():
                await self._reply.update("")
                await self._reply.append(self._text)

    def withdraw_offers(self) -> None:
        """Another turn follows, so nothing can be done to this reply any more."""
        if self._key is not None:
            self._key = None
            if self._message is not None and self.is_mounted:
                self._show_end(self._message)

    async def finish(self, message: Message) -> None:
        """Paint all that is left and show how the reply ended."""
        self._message = message
        whole = sanitize(message.content)
        if whole != self._text or _LINK_DEFINITION.search(whole):
            self._text = whole
            await self._show_all()
        else:
            await self._paint()
        self._show_end(message)

    @on(Markdown.LinkClicked)
    async def _link_clicked(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        await self.app.run_action(f"app.link({event.href!r})")

    def _schedule(self) -> None:
        if self._scheduled or not self.is_attached:
            return
        self._scheduled = True
        wait = self._last_paint + self._interval - time.monotonic()
        self.set_timer(max(0.001, wait), self._paint_in_time)

    async def _paint_in_time(self) -> None:
        self._scheduled = False
        if self._message is not None:
            return
        started = time.thread_time()
        await self._paint()
        self.call_after_refresh(self._after_paint, started)

    def _after_paint(self, started: float) -> None:
        cost = time.thread_time() - started
        self._interval = min(MAX_PAINT_INTERVAL, max(MIN_PAINT_INTERVAL, PAINT_SHARE * cost))
        self._last_paint = time.monotonic()

    async def _paint(self) -> None:
        self._paint_reasoning()
        fresh = self._text[self._painted :]
        if not fresh:
            return
        self._painted = len(self._text)
        if self._plain.display or too_heavy(self._text):
            await self._show_plain()
        else:
            await self._reply.append(fresh)

    async def _show_all(self) -> None:
        self._paint_reasoning()
        self._painted = len(self._text)
        if too_heavy(self._text):
            await self._show_plain()
        else:
            await self._reply.update(self._text)

    async def _show_plain(self) -> None:
        """A block that would stall the screen as Markdown is shown as the text that it is."""
        if not self._plain.display:
            self._plain.display, self._reply.display = True, False
            await self._reply.update("")
        self._plain.show([("m", "shown as plain text, too large to format\n\n"), self._text])

    def _paint_reasoning(self) -> None:
        if not self._reasoning_text:
            return
        self._reasoning.display = True
        if self._text and self._reasoning_started:
            label = f"thought for {seconds(time.monotonic() - self._reasoning_started)}"
            self._reasoning_started = 0.0
            self._reasoning.update_text(self._reasoning_text, label)
        elif self._reasoning_started:
            self._reasoning.update_text(self._reasoning_text, "thinking")
        elif self._reasoning._label == "thinking":
            self._reasoning.update_text(self._reasoning_text, "thoughts")

    def _show_end(self, message: Message) -> None:
        lines = foot_lines(message, self._key)
        if message.status == "failed":
            # Wrapped: what to do next stands at the end of an error.
            self.query(".failed-foot").remove()
            self.mount(InkText(lines[0], classes="foot failed-foot"))
            return
        self._foot.show(lines)
        self._foot.display = True
