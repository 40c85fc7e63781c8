"""What the screens that are opened over the chat have in common."""

from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.screen import Screen, ScreenResultType


class LeftOnce(Screen[ScreenResultType]):
    """A screen that is dismissed once: a key that was pressed twice comes when it is gone."""

    # The keys of the app, which Textual keeps from a modal screen.
    BINDINGS = [
        Binding("ctrl+c", "app.do('interrupt')", show=False),
        Binding("ctrl+q", "app.do('quit')", show=False),
    ]
    _was_left = False

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave with `result`; a second time would take the screen below away."""
        if self._was_left:
            return AwaitComplete()
        self._was_left = True
        return super().dismiss(result)
