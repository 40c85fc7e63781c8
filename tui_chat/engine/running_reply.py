"""What is known of a reply while it is generated: its ids, its moments and its figures."""

import time
from dataclasses import dataclass, field

from tui_chat.engine.reasoning import Piece
from tui_chat.types import Precision, ReplyMetrics, TextDelta


@dataclass(slots=True)
class RunningReply:
    """What is known so far of the reply being generated."""

    prompt_ids: tuple[int, ...] = ()
    continued_ids: tuple[int, ...] = ()
    """Those at the end of the prompt that are the beginning of the reply, where it goes on."""
    new_ids: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    drafted_tokens: int = 0
    cache_note: str = ""
    speculation_note: str = ""
    tokenize_seconds: float = 0.0
    started: float = 0.0
    """When the prompt was encoded; 0.0 before."""
    first: float = 0.0
    """When the first token came; 0.0 before."""
    last: float = 0.0

    def add(self, token_id: int) -> None:
        """Note a token at the moment it came; drafted ones come several at a time."""
        self.new_ids.append(token_id)
        self.last = time.perf_counter()
        self.first = self.first or self.last

    def delta(self, piece: Piece) -> TextDelta:
        """An event with `piece` and the live figures."""
        return TextDelta(piece.text, piece.kind, len(self.new_ids), self.last - self.first)

    def metrics(self, precision: Precision, peak_memory_bytes: int) -> ReplyMetrics:
        """The final figures, also of a reply that ended early."""
        until = self.first or time.perf_counter()
        return ReplyMetrics(
            prompt_tokens=len(self.prompt_ids),
            cached_tokens=self.cached_tokens,
            completion_tokens=len(self.new_ids),
            tokenize_seconds=self.tokenize_seconds,
            prefill_seconds=until - self.started if self.started else 0.0,
            decode_seconds=self.last - self.first,
            precision=precision,
            peak_memory_bytes=peak_memory_bytes,
            drafted_tokens=self.drafted_tokens,
            cache_note=self.cache_note,
            speculation_note=self.speculation_note,
        )


def figures_line(metrics: ReplyMetrics) -> str:
    """The figures of a reply for the log, in the terms of the screen; never any of its text."""
    new = metrics.prompt_tokens - metrics.cached_tokens
    parts = [
        f"tokenize {_milliseconds(metrics.tokenize_seconds)}",
        f"prefill {new} tok ({metrics.cached_tokens} reused) "
        f"{_milliseconds(metrics.prefill_seconds)} {metrics.prompt_tokens_per_second:.1f} tok/s",
        f"{metrics.completion_tokens} tok ({metrics.drafted_tokens} drafted) "
        f"{_milliseconds(metrics.decode_seconds)} {metrics.tokens_per_second:.1f} tok/s",
        f"total {_milliseconds(metrics.total_seconds)}",
        f"peak {metrics.peak_memory_bytes / 1e9:.2f} GB",
        metrics.cache_note,
        metrics.speculation_note and f"no drafts: {metrics.speculation_note}",
    ]
    return " · ".join(filter(None, parts))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
