"""The rows around the box: what is happening, the hints, and model, mode, context, memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui_chat.types import LoadProgress, MemoryUse, Mode, Role, TextDelta
from tui_chat.ui.commands import Action
from tui_chat.ui.ink import Line, OneLine, Part, gigabytes, meter, seconds, thousands

if TYPE_CHECKING:
    from tui_chat.chat.draft_meter import PromptSize


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that the status bar shows."""

    model: str = ""
    rung: str = "loading"
    """The precision that runs, the server that does, or "loading" or "no model"."""
    mode: Mode = Mode.SPEED
    title: str = ""
    prompt_tokens: int = 0
    draft_tokens: int = 0
    context_window: int = 0
    reserved_tokens: int = 0
    exact: bool = True
    memory: MemoryUse | None = None
    tokens_per_second: float = 0.0
    """Of the last reply; 0 when there is none to speak of."""
    exact_rate: bool = True


def _left(status: Status) -> list[Line]:
    mode: Line = (("m", " · "), str(status.mode))
    head: Line = (status.model, ("m", " · "), status.rung, *mode)
    short, shorter = _cut(status.model, 18), _cut(status.model, 12)
    return [
        (*head, ("m", f"   {status.title}")) if status.title else head,
        head,
        head,
        (short, *head[1:]),
        *[(short, *mode)] * 3,
        (shorter, *mode),
        (shorter,),
    ]


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _right(status: Status) -> list[Line]:
    window = status.context_window
    about = "" if status.exact else "≈"
    used, draft = status.prompt_tokens, status.draft_tokens
    rate = f"{status.tokens_per_second:,.1f}" if status.tokens_per_second else "—"
    if status.tokens_per_second and not status.exact_rate:
        rate = f"≈{rate}"
    if not window:
        return [(("m", "context — "),), ()]

    def bar(cells: int, *, reserve: bool = False) -> list[Part]:
        kept = status.reserved_tokens / window if reserve else 0.0
        return meter(used / window, cells, draft=draft / window, reserve=kept)

    plus = f" + {draft:,} draft" if draft else ""
    total = f"{about}{thousands(used + draft)}"
    of: Part = ("m", f"/{thousands(window)}")
    memory = status.memory
    wide: list[Part] = []
    normal: list[Part] = []
    narrow: list[Part] = []
    if memory is not None:
        weights, cache = gigabytes(memory.weights_bytes), gigabytes(memory.cache_bytes)
        free = gigabytes(memory.free_bytes)
        wide = [("m", "   memory "), weights, ("m", " + KV "), cache, ("m", ", free "), free]
        normal = ["   ", gigabytes(memory.used_bytes), ("m", f"/{gigabytes(memory.total_bytes)}")]
        narrow = ["  ", gigabytes(memory.used_bytes)]
    whole: list[Part] = [
        ("m", "context "),
        *bar(24, reserve=True),
        f" {about}{used:,}",
        ("m", f"{plus} of {window:,} · {status.reserved_tokens:,} kept"),
        *wide,
        ("m", "   last "),
        f"{rate} tok/s",
    ]
    return [
        whole,
        whole,
        [*bar(16), f" {total}", of, *normal, f"   {rate} tok/s"],
        [*bar(12), f" {total}", of, *narrow, f"  {rate} tok/s"],
        [*bar(12), f" {total}", of],
        [*bar(8), f" {total}", of],
        [total, of],
    ]


class StatusBar(OneLine):
    """Model and precision, mode, context meter, memory, the last reply's tokens per second."""

    def __init__(self) -> None:
        super().__init__(id="status-bar")
        self.status = Status()

    def update_status(self, status: Status) -> None:
        """Show `status`; nothing is repainted if it looks the same."""
        self.status = status
        self.show(_left(status), _right(status))


class Activity(OneLine):
    """The row above the box: what the engine does, and what is waiting below."""

    def __init__(self) -> None:
        super().__init__(id="activity")

    def show_idle(self, *, below: bool, unseen: bool, follow_key: str) -> None:
        """Nothing is running; `below` tells of text under the view, `unseen` that it is new."""
        self.show([()], _below(follow_key, unseen=unseen) if below else [()])

    def show_loading(
        self, progress: LoadProgress, *, below: bool, stop_key: str, follow_key: str
    ) -> None:
        """A model is being loaded."""
        stop: list[Line] = [(("k", stop_key), ("m", " cancel"))]
        self.show(
            progress_lines((("it", "▪"), f" {progress.stage}"), progress),
            _below(follow_key, unseen=False) if below else stop,
        )

    def show_reading(
        self, done: int, total: int, elapsed: float, stop_key: str, *, exact: bool = True
    ) -> None:
        """The prompt is being prefilled."""
        fraction = done / total if total else 0.0
        count: Part = ("m", f"  {done:,} of {'' if exact else '≈'}{total:,} tok")
        timed: Part = ("m", f" · {seconds(elapsed)}")
        bar = meter_of_progress(fraction, 24)
        short = meter_of_progress(fraction, 16)
        head: list[Part] = [("it", "▪"), " reading "]
        self.show(
            [
                [("it", "▪"), " reading the prompt  ", *bar, count, timed],
                [*head, *bar, count, timed],
                [*head, *short, count],
                [*head, *short],
            ],
            _stop(stop_key),
        )

    def show_waiting(self, why: str, stop_key: str) -> None:
        """A busy server is waited for."""
        self.show([[("warn", "▪"), f" {why}"]], _stop(stop_key))

    def show_writing(
        self, delta: TextDelta, *, below: bool, stop_key: str, follow_key: str
    ) -> None:
        """The reply is being decoded; the rate is that of the decode so far."""
        tokens, elapsed = delta.completion_tokens, delta.decode_seconds
        about = "≈" if delta.approximate else ""
        mark, count = ("it", "▪"), f"{about}{tokens:,} tok"
        verb = "thinking" if delta.kind == "reasoning" else "writing"
        lines: list[Line] = [(mark, f" {verb}  ", ("m", count)), (mark, f" {count}")]
        if tokens >= 8 and elapsed > 0:
            rate = ("rate", f"{about}{(tokens - 1) / elapsed:,.1f} tok/s")
            long: Line = (*lines[0], ("m", f" · {seconds(elapsed)} · "), rate)
            lines = [long, long, (mark, " ", ("m", f"{count} · "), rate), (mark, " ", rate)]
        self.show(lines, _below(follow_key, unseen=True) if below else _stop(stop_key))


def meter_of_progress(fraction: float, cells: int) -> list[Part]:
    """A bar for work that is done, which never turns to a warning."""
    return [("it", part[1]) if part[0] != "off" else part for part in meter(fraction, cells)]


def progress_lines(head: Line, progress: LoadProgress) -> list[Line]:
    """`head` and how far the work has come, from the whole line to the short one.

    Its figures say more than its bar, and than the name before them.
    """
    told: Part = ("m", f"  {progress.detail}")
    if progress.fraction is None:
        return [[*head, told], head]
    bar, short = (meter_of_progress(progress.fraction, cells) for cells in (24, 12))
    brief: Part = ("m", f"  {progress.detail.rpartition(': ')[2]}")
    return [
        [*head, "  ", *bar, told],
        [*head, "  ", *short, told],
        [*head, "  ", *short, brief],
        [*head, brief],
        [*head, "  ", *short],
        head,
    ]


def _stop(key: str) -> list[Line]:
    if not key:
        return [()]
    return [(("k", key), ("m", " stop, keep the text")), (("k", key), ("m", " stop"))]


def _below(key: str, *, unseen: bool) -> list[Line]:
    mark: Part = ("hi", "↓ new text below") if unseen else ("m", "↓ more below")
    return [(mark, "  ", ("k", key), ("m", " to follow" if unseen else " to the end")), (mark,)]


class HintRow(OneLine):
    """The row under the text: keys or the command on the left, the draft's size right."""

    def __init__(self) -> None:
        super().__init__(id="hint")

    def update_hint(
        self,
        command: Action | None,
        *,
        key: Callable[[str], str],
        queues: bool,
        completes: bool,
        unfolds: bool,
        size: "PromptSize | None",
        about: int | None,
        exact: bool,
    ) -> None:
        """Show what fits the moment; `key` gives the shown key of an action.

        `command` is the one whose argument is being typed, `completes` tells that a list of
        candidates is open, `unfolds` that the cursor is at a folded text; `size` is that of the
        next prompt where it is known, `about` an estimate of the draft while it is counted.
        """
        right = _draft_lines(size, "" if exact else "≈") if size is not None else []
        if about is not None:
            tokens = f"≈{about:,} tok"
            right = [(("m", "counting… "), tokens), (tokens,)]
        if completes:
            choose: Line = (("k", "↑↓"), ("m", " choose · "), ("k", key("complete")))
            close: Line = (("m", " take · "), ("k", key("stop")), ("m", " close"))
            self.show([(*choose, *close)], right)
            return
        if command is not None:
            usage: Line = (("ref", command.usage),)
            self.show([(*usage, ("m", f"  {command.help}")), usage])
            return
        if unfolds:
            unfold: Line = (("k", key("complete")), ("m", " unfold · "))
            self.show([(*unfold, ("k", "Backspace"), ("m", " remove"))], right)
            return
        keys: Line = (
            ("k", key("send")),
            ("m", " queue · " if queues else " send · "),
            ("k", key("newline")),
            ("m", " newline"),
        )
        enter: Line = keys[:2]
        if right:  # the size matters more
            self.show([keys, keys, enter, ()], right)
        else:
            palette: Line = (("k", key("palette")), ("m", " palette · "))
            commands_line: Line = (("k", "/"), ("m", " commands · "))
            last: Line = (("k", key("help")), ("m", " help"))
            right = [(*commands_line, *palette, *last), (*commands_line, *last), last]
            self.show([keys], right)


def _draft_lines(size: "PromptSize", about: str) -> list[Line]:
    """The draft's size and what is left after it, or nothing without a draft."""
    if not size.draft_tokens:
        return []
    tokens, left = f"{about}{size.draft_tokens:,} tok", size.room_left
    if left < 0:
        long: Part = ("warn", f"{tokens} · {about}{-left:,} too many, even alone: shorten it")
        return [(long,), (("warn", f"{tokens} · too long"),)]
    if size.drops_more:
        turns = sum(message.role is Role.USER for message in size.plan.dropped)
        noun = "turn" if turns == 1 else f"{turns} turns"
        return [
            (("warn", f"{tokens} · the oldest {noun} will not be sent"),),
            (("warn", f"{tokens} · oldest {noun} out"),),
        ]
    return [
        (("m", "draft "), tokens, ("m", f" · {about}{left:,} left after it and the reply")),
        (tokens, ("m", f" · {about}{left:,} left")),
    ]
