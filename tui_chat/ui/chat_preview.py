"""What stands in the highlighted chat of the list: its last messages, or those with the hits."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.containers import VerticalScroll
from textual.widget import Widget

from tui_chat.store.conversations import ConversationStore
from tui_chat.store.search import words_of
from tui_chat.types import ConversationSummary, Role
from tui_chat.ui.excerpt import Piece, excerpt
from tui_chat.ui.ink import InkText, Line, OneLine, Part
from tui_chat.ui.search_list import mark_hits

_MESSAGES = 4
_LINES = 9
"""Lines of one message, so that more than one is in sight."""
_LONGEST_LINE = 240


@dataclass(frozen=True, slots=True)
class PreviewText:
    """Some of a message."""

    role: Role | None
    """None for a title that is a hit."""
    pieces: Sequence[Piece]


def read_preview(
    store: ConversationStore, conversation_id: str, query: str, *, is_hit: bool
) -> list[PreviewText]:
    """What to show of a conversation: no more of its file is read than that needs.

    Raises:
        StoreError: it cannot be read.
    """
    words = words_of(query)
    texts: list[tuple[Role | None, str]] = []
    if is_hit:
        found = store.found_texts(conversation_id, query, _MESSAGES)
        texts = [(hit.role, hit.text) for hit in found if hit.message_id]
    if not texts:
        last = store.last_messages(conversation_id, _MESSAGES)
        texts = [(message.role, message.content) for message in last]
    return [
        PreviewText(
            role,
            excerpt(text, words, _LINES, _LONGEST_LINE, is_markdown=role is Role.ASSISTANT),
        )
        for role, text in texts
    ]


class ChatPreview(VerticalScroll, can_focus=False):
    """The pane beside the list."""

    DEFAULT_CSS = """
    ChatPreview { scrollbar-gutter: stable; scrollbar-size-vertical: 1; padding: 0 1 0 2; }
    ChatPreview .preview-user {
        margin: 1 0 0 0; padding: 0 1; border-left: outer $primary; background: $surface;
        color: $bright;
    }
    ChatPreview .preview-text { padding: 0 1 0 2; }
    ChatPreview .preview-code { padding: 0 1 0 2; margin: 0 0 0 2; background: $code; }
    ChatPreview .preview-code:ansi { background: ansi_default; }
    ChatPreview .-first { margin-top: 1; }
    """

    async def show(
        self, summary: ConversationSummary, about: Line, texts: Sequence[PreviewText], query: str
    ) -> None:
        """Replace what is shown; `about` stands under the title, hits of `query` are marked."""
        title = mark_hits(" ".join(summary.title.split()), query, "hi")
        views: list[Widget] = [OneLine([title]), OneLine([about])]
        for text in texts:
            views += _views(text, query)
        with self.app.batch_update():
            await self.remove_children()
            await self.mount_all(views)
        self.scroll_to(y=0, animate=False)

    async def clear(self) -> None:
        """Show nothing."""
        await self.remove_children()


def _views(text: PreviewText, query: str) -> list[Widget]:
    if text.role is Role.USER:
        parts: list[Part] = []
        for piece in text.pieces:
            parts += ["\n"] * bool(parts) + _marked(piece, query)
        return [InkText(parts, classes="preview-user")]
    views: list[Widget] = []
    for piece in text.pieces:
        classes = "preview-code" if piece.kind == "code" else "preview-text"
        views.append(InkText(_marked(piece, query), classes=classes + " -first" * (not views)))
    return views


def _marked(piece: Piece, query: str) -> list[Part]:
    return [("m", piece.text)] if piece.kind == "gap" else mark_hits(piece.text, query, "")
