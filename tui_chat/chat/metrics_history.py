"""What the replies of one conversation cost: series to plot, medians by mode, and all as text.

Everything comes from what is stored with the messages, so no model needs to be loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tui_chat.types import Conversation, Message, Mode, ReplyMetrics, Role

FEWEST_TOKENS = 8
"""A reply of fewer tokens has no rate worth telling."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number."""

    value: float
    approximate: bool = False
    """Whether it rests on counts that a server did not tell."""

    @property
    def about(self) -> str:
        """The mark of an estimate, or nothing."""
        return "≈" if self.approximate else ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is known of each reply, or is not."""

    of: Callable[[ReplyMetrics], float | None]
    is_counted: bool
    """Whether it rests on counts of tokens, not on a clock or on bytes."""

    def figure(self, metrics: ReplyMetrics) -> Figure | None:
        """Its figure for one reply; None where it is not known."""
        value = self.of(metrics)
        return None if value is None else Figure(value, self.is_counted and metrics.approximate)


def _rate(metrics: ReplyMetrics) -> float | None:
    rate = metrics.tokens_per_second
    return rate if rate > 0 and metrics.completion_tokens >= FEWEST_TOKENS else None


def _reused(metrics: ReplyMetrics) -> float | None:
    # A server that reuses nothing and one that does not tell look the same.
    told = metrics.precision is not None or metrics.cached_tokens > 0
    return metrics.cached_tokens / metrics.prompt_tokens if told and metrics.prompt_tokens else None


def _drafted(metrics: ReplyMetrics) -> float | None:
    return metrics.drafted_tokens / metrics.completion_tokens if metrics.drafted_tokens else None


TOKENS_PER_SECOND = Quantity(_rate, is_counted=True)
REUSED_SHARE = Quantity(_reused, is_counted=True)
"""Share of the prompt that was in the prompt cache, 0 to 1."""
PREFILL_SECONDS = Quantity(lambda metrics: metrics.prefill_seconds or None, is_counted=False)
CONTEXT_TOKENS = Quantity(
    lambda metrics: metrics.prompt_tokens + metrics.completion_tokens, is_counted=True
)
"""Tokens of the context window that prompt and reply took together."""
PEAK_MEMORY_BYTES = Quantity(lambda metrics: metrics.peak_memory_bytes or None, is_counted=False)
DRAFTED_SHARE = Quantity(_drafted, is_counted=True)
"""Share of the reply that was drafted from the context and verified, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ModeMedians:
    """The replies that were written wholly in one mode."""

    mode: Mode
    metrics: tuple[ReplyMetrics, ...]

    def median(self, quantity: Quantity) -> Figure | None:
        """The middle of what is known of them; None where nothing is."""
        figures = [figure for m in self.metrics if (figure := quantity.figure(m)) is not None]
        if not figures:
            return None
        approximate = any(figure.approximate for figure in figures)
        return Figure(median(figure.value for figure in figures), approximate)


@dataclass(frozen=True, slots=True)
class MetricsHistory:
    """The measured replies of one branch, oldest first."""

    replies: tuple[Message, ...] = ()
    has_earlier: bool = False
    """Whether there are replies before these, which are not loaded."""

    @classmethod
    def of(cls, conversation: Conversation) -> "MetricsHistory":
        """The history of the open branch; replies of which nothing was measured are left out."""
        measured = tuple(message for message in conversation.messages if _is_measured(message))
        return cls(measured, conversation.has_earlier)

    @property
    def metrics(self) -> tuple[ReplyMetrics, ...]:
        """What each reply cost."""
        return tuple(reply.metrics for reply in self.replies if reply.metrics is not None)

    @property
    def is_mixed(self) -> bool:
        """Whether several models, or precisions of one, wrote the replies."""
        return len({_writer(reply) for reply in self.replies}) > 1

    def series(self, quantity: Quantity) -> tuple[float | None, ...]:
        """One value for each reply."""
        return tuple(quantity.of(metrics) for metrics in self.metrics)

    def last(self, quantity: Quantity) -> Figure | None:
        """The figure of the last reply."""
        return quantity.figure(self.metrics[-1]) if self.replies else None

    def by_mode(self) -> tuple[ModeMedians, ...]:
        """Speed mode and accuracy mode, as far as they can be compared.

        Only replies by the model, and in the precision, of the last one count: what two models
        cost says nothing of the modes.
        """
        writer = _writer(self.replies[-1]) if self.replies else None
        alike = [reply for reply in self.replies if _writer(reply) == writer]
        return tuple(
            ModeMedians(mode, tuple(r.metrics for r in alike if r.metrics and _is_in(r, mode)))
            for mode in Mode
        )


def _is_measured(message: Message) -> bool:
    metrics = message.metrics
    return message.role is Role.ASSISTANT and metrics is not None and metrics.completion_tokens > 0


def _writer(reply: Message) -> tuple[object, ...]:
    return reply.model, reply.metrics.precision if reply.metrics else None


def _is_in(reply: Message, mode: Mode) -> bool:
    return reply.mode is mode and not reply.modes


# ---- as text ----

_HEADS = (
    *("reply", "mode", "precision", "tok/s", "tokens", "prompt", "reused"),
    *("tokenize s", "prefill s", "decode s", "drafted", "peak MB", "model"),
)


def as_text(history: MetricsHistory) -> str:
    """The figures in columns, one line a reply and one for the medians of each mode."""
    rows: list[Sequence[str]] = [_HEADS]
    rows += [_cells(number, reply) for number, reply in enumerate(history.replies, start=1)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if history.has_earlier:
        lines.insert(0, "Earlier replies are not loaded.")
    return "\n".join([*lines, "", *map(_median_line, history.by_mode())]) + "\n"


def _cells(number: int, reply: Message) -> Sequence[str]:
    metrics = reply.metrics or ReplyMetrics()
    about = "≈" if metrics.approximate else ""
    return (
        str(number),
        "+".join(reply.modes) or reply.mode or "—",
        metrics.precision or "—",
        _number(TOKENS_PER_SECOND.figure(metrics), 1),
        f"{about}{metrics.completion_tokens}",
        f"{about}{metrics.prompt_tokens}",
        str(metrics.cached_tokens) if REUSED_SHARE.of(metrics) is not None else "—",
        f"{metrics.tokenize_seconds:.4f}" if metrics.tokenize_seconds else "—",
        _number(PREFILL_SECONDS.figure(metrics), 4),
        f"{metrics.decode_seconds:.3f}",
        str(metrics.drafted_tokens),
        f"{metrics.peak_memory_bytes / 1e6:.0f}" if metrics.peak_memory_bytes else "—",
        " ".join(reply.model.split()) or "—",
    )


def _median_line(mode: ModeMedians) -> str:
    count = f"{len(mode.metrics)} {'reply' if len(mode.metrics) == 1 else 'replies'}"
    rate = _number(mode.median(TOKENS_PER_SECOND), 1)
    prefill = _number(mode.median(PREFILL_SECONDS), 4)
    return f"{mode.mode}: {count}, median {rate} tok/s, prefill {prefill} s"


def _number(figure: Figure | None, digits: int) -> str:
    return "—" if figure is None else f"{figure.about}{figure.value:.{digits}f}"
