"""What happens to the text of a reply on its way from the engine to the reader: cleaning and
pacing, both while it streams."""

import re
import time
from collections.abc import Callable
from dataclasses import replace

from tui_chat.types import TextDelta

OPENING_TAGS: tuple[str, ...] = (
    "assistant\n",
    "assistant:",
    "<|im_start|>assistant\n",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<start_of_turn>model\n",
    "<|assistant|>",
)
"""Role tags that a reply may open with, in lower case."""

END_MARKERS: tuple[str, ...] = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "</s>",
)
"""What chat templates and tokenizers end a reply with. Each has one "<", its first character."""

_LONGEST_MARKER = max(map(len, END_MARKERS))
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*\Z)|~{3,})(.*)", re.DOTALL)


class _CodeFence:
    """Knows whether the text so far ends inside a fenced code block."""

    def __init__(self) -> None:
        self._line: list[str] = []
        self._open = ""

    def feed(self, text: str) -> None:
        *ended, rest = text.split("\n")
        for end in ended:
            self._open = self._after("".join((*self._line, end)))
            self._line.clear()
        self._line.append(rest)

    def _after(self, line: str) -> str:
        """The fence that is open after `line`, or nothing."""
        found = _FENCE.match(line)
        if not found:
            return self._open
        fence, info = found.groups()
        if not self._open:
            return fence
        closes = fence.startswith(self._open) and not info.strip()
        return "" if closes else self._open

    @property
    def inside(self) -> bool:
        return bool(self._open and self._after("".join(self._line)))


class ReplyCleaner:
    """Takes role tags off the opening of a reply, template markers and blank space off its end.

    Nothing inside of the text or of a code block changes, and the result does not depend on how
    the text was cut into pieces. At most one marker and the blank space around it is held back.
    """

    def __init__(self) -> None:
        self._opening = True
        self._held = ""
        self._fence = _CodeFence()

    def feed(self, text: str) -> str:
        """The next piece of the reply; returns what is certain to be part of the clean text."""
        self._held += text
        if self._opening and not self._open():
            return ""
        cut = self._end_of_certain()
        certain, self._held = self._held[:cut], self._held[cut:]
        self._fence.feed(certain)
        return certain

    def finish(self) -> str:
        """The rest of the clean text, after the last piece."""
        if self._opening:
            self._opening = False
            self._held = _without_blank_lines(self._held)
        held, self._held = self._held, ""
        cut = _end_of_text(held)
        blank = len(held) - cut - len(held[cut:].lstrip())
        self._fence.feed(held[: cut + blank])
        return held if self._fence.inside else held[:cut]

    def _open(self) -> bool:
        """Take the opening tags off what is held; False while more text could complete one."""
        while True:
            start = self._held.lstrip()
            lower = start[:64].lower()
            if any(len(tag) > len(start) and tag.startswith(lower) for tag in OPENING_TAGS):
                return False
            tag = next((tag for tag in OPENING_TAGS if lower.startswith(tag)), None)
            if tag is None:
                break
            self._held = start[len(tag) :]
        self._held = _without_blank_lines(self._held)
        self._opening = False
        return True

    def _end_of_certain(self) -> int:
        """Where the run of blank space, markers and one unfinished marker at the end begins."""
        held = self._held
        unfinished = held.rfind("<", max(0, len(held) - _LONGEST_MARKER + 1))
        if unfinished >= 0 and any(mark.startswith(held[unfinished:]) for mark in END_MARKERS):
            return _end_of_text(held[:unfinished])
        return _end_of_text(held)


def _end_of_text(text: str) -> int:
    """Length of `text` without the blank space and markers at its end."""
    end = len(text.rstrip())
    while text.endswith(END_MARKERS, 0, end):
        end -= next(len(marker) for marker in END_MARKERS if text.endswith(marker, 0, end))
        end = len(text[:end].rstrip())
    return end


def _without_blank_lines(text: str) -> str:
    """`text` without leading blank lines and a stray space; the indent of code is kept."""
    start = text.lstrip()
    indent = text[: len(text) - len(start)].rpartition("\n")[2]
    return indent + start if "\t" in indent or len(indent) >= 4 else start


class DeltaPacer:
    """Joins text deltas so that a reader gets at most one per `interval` seconds and kind.

    The first one passes at once; the order of reasoning and content is kept, and a delta carries
    the latest figures. A delta without text only brings new figures.
    """

    def __init__(self, interval: float = 0.1, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._last: float | None = None
        self._pending: list[TextDelta] = []
        self._texts: list[str] = []

    def push(self, delta: TextDelta) -> list[TextDelta]:
        """Take `delta`; returns what is due now."""
        if self._pending and delta.kind == self._pending[-1].kind:
            self._texts.append(delta.text)
            self._pending[-1] = delta
        elif delta.text:
            self._join()
            self._texts.append(delta.text)
            self._pending.append(delta)
        if not self._pending:
            return []
        now = self._clock()
        if self._last is not None and now - self._last < self._interval:
            return []
        self._last = now
        return self.flush()

    def flush(self) -> list[TextDelta]:
        """Everything that is held, due or not."""
        self._join()
        due, self._pending = self._pending, []
        return due

    def _join(self) -> None:
        """Give the last pending delta all the text that was collected for it."""
        if self._pending:
            self._pending[-1] = replace(self._pending[-1], text="".join(self._texts))
            self._texts.clear()
