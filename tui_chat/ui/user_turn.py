"""A prompt on the page; its files and the rest of a long text are folded until it is opened."""

from typing import TYPE_CHECKING

from tui_chat.chat.sanitize import sanitize
from tui_chat.ui.ink import InkText, Line, Part, file_size, mark_places, turn_marks

if TYPE_CHECKING:
    from tui_chat.chat.attachment import Attachment

SHOWN_LINES = 12
SHOWN_CHARACTERS = 2_000
"""How much of a long prompt is shown folded."""
MOST_CHARACTERS = 100_000
"""How much is shown open: drawing more would stall the screen."""
_WAITING: Line = [("m", "  waiting")]


class UserTurn(InkText):
    """What the user typed, on the raised band."""

    def __init__(self, text: str, *, message_id: str = "", waiting: bool = False) -> None:
        from tui_chat.chat.attachment import split_attachments  # not before the first frame

        super().__init__(classes="user-turn -waiting" if waiting else "user-turn")
        self.message_id = message_id
        self.text = text
        self._marks: Line = _WAITING if waiting else []
        self._open = False
        self._words: tuple[str, ...] = ()
        self._is_hit = False
        """Whether all the words are in it; then nothing is folded."""
        self._files, self._written = split_attachments(text)
        self.show(self._body())

    def mark(self, version: tuple[int, int], left_out: bool) -> None:
        """Say which version of how many this is, and whether it is left out of the context."""
        self.set_class(left_out, "-left-out")
        marks = turn_marks(version, left_out=left_out)
        self._marks = ["  ", *marks] if marks else []
        self._show_body()

    def waits(self, *, is_last: bool) -> None:
        """Say that it waits to be sent, and how the last one that waits is taken back."""
        # No action has this key: it is that of an empty box.
        back: Line = [("m", " · "), ("k", "↑"), ("m", " takes it back")] if is_last else []
        self._marks = [*_WAITING, *back]
        self._show_body()

    def is_sent(self) -> None:
        """It waits no longer."""
        self.remove_class("-waiting")
        self._marks = []
        self._show_body()

    def mark_hits(self, words: tuple[str, ...]) -> None:
        """Mark the folded `words` of a search; none takes the marks away."""
        from tui_chat.store.search import fold, holds

        self._words = words
        self._is_hit = bool(words) and holds(fold(self.text), words)
        self._show_body()

    @property
    def is_laid_out(self) -> bool:
        """Whether all rows are where they will be."""
        return self.size.width > 0

    def hit_rows(self) -> list[int]:
        """The rows with marks, from the top."""
        from tui_chat.ui.row_hits import hits_in_rows
        from tui_chat.ui.wrapping import Run, wrap

        text = "".join(part if isinstance(part, str) else part[1] for part in self._parts)
        rows = wrap([Run(sanitize(text))], self.content_size.width)
        return sorted(hits_in_rows(rows, self._words))

    @property
    def folds(self) -> bool:
        """Whether there is something to open, or to fold again."""
        return bool(self._files or _head(self._written, open_=False)[1])

    @property
    def is_open(self) -> bool:
        """Whether what can be folded is open."""
        return self._open

    def toggle(self) -> None:
        """Open what is folded, or fold it again."""
        self._open = not self._open
        self.show(self._body())

    def on_click(self) -> None:
        if self.screen.get_selected_text() is None:
            self.toggle()

    def _show_body(self) -> None:
        if (parts := self._body()) != self._parts:
            self.show(parts)

    def _body(self) -> Line:
        is_open = self._open or self._is_hit
        parts: list[Part] = []
        for file in self._files:
            parts += [*_file_parts(file, open_=is_open), "\n"]
        shown, behind = _head(self._written, open_=is_open)
        parts.append(shown)
        if behind:
            parts.append(("m", f"\n{behind}"))
        if self._words:
            parts = _marked(parts, self._words)
        return [*parts, *self._marks]


def _marked(parts: Line, words: tuple[str, ...]) -> list[Part]:
    from tui_chat.store.search import places

    marked: list[Part] = []
    for part in parts:
        word, text = ("", part) if isinstance(part, str) else part
        marked += mark_places(text, places(text, words), word)
    return marked


def _file_parts(file: "Attachment", *, open_: bool) -> list[Part]:
    lines = file.text.count("\n")
    count = "1 line" if lines == 1 else f"{lines:,} lines"
    head: list[Part] = [("ref", f"+ {file.path}"), ("m", f" {file_size(file.size)} · {count}")]
    if not open_:
        return head
    shown, behind = _head(file.text.removesuffix("\n"), open_=True)
    return [*head, "\n", shown, *([("m", f"\n{behind}")] if behind else [])]


def _head(text: str, *, open_: bool) -> tuple[str, str]:
    """As much of a text as is shown, and what the line behind it says."""
    most = MOST_CHARACTERS if open_ else SHOWN_CHARACTERS
    shown = text[:most]
    if not open_:
        shown = "\n".join(shown.split("\n", SHOWN_LINES)[:SHOWN_LINES])
    left = len(text) - len(shown)
    # A fold that hides next to nothing is only in the way.
    if not left or (
        not open_ and left < SHOWN_CHARACTERS // 10 and text.count("\n") < 2 * SHOWN_LINES
    ):
        return text, ""
    lines = text.count("\n") - shown.count("\n")
    rest = f"{lines:,} more lines" if lines > 1 else f"{left:,} more characters"
    return shown, f"… {rest}: /pager shows all" if open_ else f"▸ {rest}"
