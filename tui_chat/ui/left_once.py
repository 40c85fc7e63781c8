"""What the screens that are opened over the chat have in common."""

from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.screen import Screen, ScreenResultType


class LeftOnce(Screen[ScreenResultType]):
    """A screen that is dismissed once, and not before it is there.

    A key that was pressed twice comes when it is gone, and one pressed at once before it is there.
    """

    # The keys of the app, which Textual keeps from a modal screen.
    BINDINGS = [
        Binding("ctrl+c", "app.do('interrupt')", show=False),
        Binding("ctrl+q", "app.do('quit')", show=False),
    ]
    _was_left = False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing but leaving can be done before the parts are there; see `DOMNode`."""
        return self.is_mounted or action in ("back", "dismiss")

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave with `result`; a second time would take the screen below away."""
        if self._was_left:
            return AwaitComplete()
        self._was_left = True
        if not self.is_mounted:
            # Its parts would be gone before it is mounted, which looks for them.
            leave = super().dismiss

            def leave_now() -> None:
                leave(result)

            self.call_next(leave_now)
            return AwaitComplete()
        return super().dismiss(result)
