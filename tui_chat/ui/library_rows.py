"""How the list of conversations looks: its columns, a row, the text around a hit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tui_chat.chat.sanitize import one_line
from tui_chat.store.search import places, words_of
from tui_chat.types import ChatHits, ConversationSummary, Role
from tui_chat.ui.ink import Column, Line, Part, columns, when
from tui_chat.ui.plain_markdown import plain_line
from tui_chat.ui.search_list import mark_hits

PINNED, ARCHIVED = "◆", "▫"
_TITLE_LENGTH = 200
_WHO = {Role.USER: "you", Role.ASSISTANT: "model", Role.SYSTEM: "system", None: "title"}


@dataclass(frozen=True, slots=True)
class ChatRow:
    """One conversation in the list: two lines while something is searched, else one."""

    summary: ConversationSummary
    hits: ChatHits | None
    query: str
    now: datetime
    has_states: bool
    """Whether the column that says pinned or archived is there."""

    def paint(self, width: int, highlighted: bool) -> Sequence[Line]:
        """The lines of the row for a width in cells."""
        summary = self.summary
        mark = PINNED if summary.pinned else ARCHIVED if summary.archived else ""
        state = " ".join(
            word for word in ("pinned" * summary.pinned, "archived" * summary.archived) if word
        )
        texts = (
            f"{mark} {one_line(summary.title, _TITLE_LENGTH)}".lstrip(),
            state,
            one_line(summary.model.rstrip("/").rpartition("/")[2], 80),
            f"{summary.message_count:,}",
            when(summary.updated_at, self.now),
        )
        word = "hi" if highlighted else ""
        cells = _cells(width, texts, "m", word, self.has_states)
        first, *rest = columns(width, cells)
        head = mark_hits(first if isinstance(first, str) else first[1], self.query, word)
        return [[*head, *rest], self._around_hit(width)]

    def _around_hit(self, width: int) -> list[Part]:
        """Who wrote the hit, the text around it, and how many more there are."""
        hit = self.hits.last if self.hits is not None else None
        if self.hits is None or hit is None or hit.message_id is None:
            return []
        who = f"{_WHO[hit.role]:<7}" if width > 40 else ""
        more = f"  +{self.hits.count - 1:,} more" if self.hits.count > 1 else ""
        room = width - len(who) - len(more)
        words = words_of(self.query)
        snippet = one_line(hit.snippet, 400)
        if hit.role is Role.ASSISTANT:
            snippet = plain_line(snippet, words)
        found = places(snippet, words)
        if found and found[0][1] > room - 8:  # cut on the left so far that the first hit shows
            start = max(0, min(found[0][0], found[0][1] - room // 2))
            snippet = "…" + snippet[start:].lstrip()
        text, *_ = columns(room, [(snippet, 0, "")])
        marked = mark_hits(text if isinstance(text, str) else text[1], self.query, "m")
        return [("m", who), *marked, ("m", more)]


def head_cells(width: int, *, has_states: bool) -> Sequence[Column]:
    """The names of the columns."""
    return _cells(width, ("title", "", "model", "messages", "when"), "m", "m", has_states)


def _cells(
    width: int, texts: Sequence[str], word: str, title_word: str, has_states: bool
) -> list[Column]:
    """Title, state, model, messages and when; the middle ones go where room is short."""
    title, state, model, messages, moment = texts
    cells: list[Column] = [(title, 0, title_word)]
    if has_states and width > 46:
        cells.append((state, 8, word))
    if width > (60 if has_states else 52):
        cells.append((model, 14 if width < 100 else 24, word))
    if width > (72 if has_states else 62):
        cells.append((messages, -8, word))
    return [*cells, (moment, -6, word)]
