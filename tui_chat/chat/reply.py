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
    "<|header_start|>assistant<|header_end|>",
    "<start_of_turn>model\n",
    "<|start_of_role|>assistant<|end_of_role|>",
    "<|start_of_turn_token|><|chatbot_token|>",
    "<|start|>assistant<|channel|>final<|message|>",
    "<|channel|>final<|message|>",
    "<|im_assistant|>assistant<|im_middle|>",
    "<|assistant|>",
    "<｜assistant｜>",
    "[|assistant|]",
)
"""Role tags that a reply may open with, in lower case."""

END_MARKERS: tuple[str, ...] = (
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "</s>",
    "<|user|>",
    "<|observation|>",
    "[|endofturn|]",
)
"""What chat templates and tokenizers end a reply with, the tag of the next turn included. Each
has one "<" or "[", its first character, and none begins with another."""

_LONGEST_MARKER = max(map(len, END_MARKERS))
_PARAGRAPH_GAP = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)*")
_NOT_PROSE = re.compile(
    r" {0,3}(?:[-*+](?:\s|$)|\d+[.)](?:\s|$)|[|>#]|<|`{3}|~{3}|\$\$)| {2}|\t|.*\|.*\|"
)
_SENTENCE_END = re.compile(
    r"""(?<![.!?…])[.!?…]++[)\]"'”’»*_`]*(?=\s+[^\sa-z]|\s*\Z)|[。！？]+[」』”’）]*"""
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:\w|\d\d|[a-z](?:\.[a-z])+|dr|mr|mrs|ms|prof|st|vs|cf|fig|etc|approx)\Z",
    re.IGNORECASE,
)
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
        self.tail = ""
        """After `finish`: what stood behind the clean text."""
        self._opening = True
        self._blank: list[str] = []
        """Blank space and markers that may end the reply."""
        self._held = ""
        """Before the opening is over all there is, then what may be the begin of a marker."""
        self._fence = _CodeFence()

    @classmethod
    def behind(cls, text: str) -> "ReplyCleaner":
        """A cleaner of what comes behind `text`, which nobody cleans."""
        cleaner = cls()
        cleaner._opening = False
        cleaner._fence.feed(text)
        return cleaner

    def feed(self, text: str) -> str:
        """The next piece of the reply; returns what is certain to be part of the clean text."""
        self._held += text
        if self._opening and not self._open():
            return ""
        held = self._held
        whole = self._start_of_unfinished()
        cut = _end_of_text(held[:whole])
        certain = ""
        if cut:
            certain = "".join((*self._blank, held[:cut]))
            self._blank.clear()
            self._fence.feed(certain)
        if cut < whole:
            self._blank.append(held[cut:whole])
        self._held = held[whole:]
        return certain

    def finish(self) -> str:
        """The rest of the clean text, after the last piece."""
        if self._opening:
            self._opening = False
            self._held = _without_blank_lines(self._held)
        held = "".join((*self._blank, self._held))
        self._held = ""
        self._blank.clear()
        cut = _end_of_text(held)
        blank = len(held) - cut - len(held[cut:].lstrip())
        self._fence.feed(held[: cut + blank])
        if self._fence.inside:
            cut = len(held)
        self.tail = held[cut:]
        return held[:cut]

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

    def _start_of_unfinished(self) -> int:
        """Where a marker begins of which only the first part is there; else the end."""
        held = self._held
        near = max(0, len(held) - _LONGEST_MARKER + 1)
        begin = max(held.rfind("<", near), held.rfind("[", near))
        part = held[begin:]
        if begin >= 0 and any(mark.startswith(part) and mark != part for mark in END_MARKERS):
            return begin
        return len(held)


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


def end_of_sentences(text: str) -> int:
    """Length of `text`, the beginning of a reply, without the unfinished sentence at its end.

    Only prose is shortened: text that ends in code, a list, a table, a quotation, a heading or
    a formula keeps its whole length, and so does text with no finished sentence at all.
    """
    fence = _CodeFence()
    fence.feed(text)
    start = _start_of_paragraph(text)
    lines = text[start:].split("\n")
    if fence.inside or any(map(_NOT_PROSE.match, lines)) or text.count("$$") % 2:
        return len(text)
    for found in reversed(list(_SENTENCE_END.finditer(text, start))):
        before = text[start : found.start()]
        in_code_span = before.count("`") % 2
        if not in_code_span and not _ABBREVIATION.search(before):
            return found.end()
    return len(text[:start].rstrip()) or len(text)


def _start_of_paragraph(text: str) -> int:
    """Where the paragraph begins that `text` ends with; paragraphs have blank lines between."""
    gaps = list(_PARAGRAPH_GAP.finditer(text.rstrip()))
    return gaps[-1].end() if gaps else 0


class DeltaPacer:
    """Joins text deltas so that a reader gets at most one per `interval` seconds and kind.

    The first one passes at once; the order of reasoning and content is kept, and a delta carries
    the latest figures. A delta without text only brings new figures.
    """

    def __init__(self, interval: float = 0.2, clock: Callable[[], float] = time.monotonic) -> None:
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
