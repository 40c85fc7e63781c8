"""The list of what may be typed next, over the page and above the box."""

from collections.abc import Callable, Sequence

from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget

from tui_chat.ui.completion import Candidate
from tui_chat.ui.ink import columns, paint

ROWS = 8


class CompletionList(Widget):
    """Some rows of candidates around the highlighted one."""

    def __init__(self, pick: Callable[[int | None], object]) -> None:
        """`pick` is called with the number of a row that is clicked."""
        super().__init__(id="completions")
        self._pick = pick
        self.display = False
        self._candidates: Sequence[Candidate] = ()
        self._index = 0
        self._first = 0

    def show_candidates(self, candidates: Sequence[Candidate], index: int, desk: Region) -> None:
        """Show them right above the `desk`, the `index`-th highlighted (-1: none)."""
        self.display = bool(candidates)
        self._candidates, self._index = candidates, index
        at = max(0, index)
        self._first = min(max(self._first, at - ROWS + 1), at)
        self._first = max(0, min(self._first, len(candidates) - ROWS))
        self.styles.height = min(ROWS, len(candidates))
        self.styles.width = desk.width
        self.styles.margin = (0, 0, self.screen.size.height - desk.y, desk.x)
        self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        shown = self._candidates[self._first : self._first + ROWS]
        size = min(max((Content(c.shown).cell_length for c in shown), default=0), width * 2 // 3)
        lines = []
        for at, candidate in enumerate(shown, start=self._first):
            chosen = at == self._index
            count = f"{at + 1} of {len(self._candidates)}" if len(self._candidates) > ROWS else ""
            row = columns(
                max(1, width - 4),
                [
                    (candidate.shown, size, "hi" if chosen else "ref"),
                    (candidate.note, 0, "k" if chosen else "m"),
                    *([(count, -len(count), "m")] if chosen and count else []),
                ],
            )
            lines.append(paint(self.app, [("you", "▌  ") if chosen else "   ", *row]))
        return Content("\n").join(lines)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if 0 <= self._first + event.y < len(self._candidates):
            self._pick(self._first + event.y)
