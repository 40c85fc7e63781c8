"""What stands under the page: the box where one types, which no message may cover."""

import contextlib

from textual import events
from textual.containers import Container
from textual.css.query import NoMatches
from textual.geometry import Spacing
from textual.widgets._toast import ToastRack

STATUS_ROWS = 1
"""The status bar, which stands under it."""


class Dock(Container):
    """The rows between page and status bar; toasts are shown above them, however many there are."""

    def on_resize(self, event: events.Resize) -> None:
        with contextlib.suppress(NoMatches):
            rack = self.screen.get_child_by_type(ToastRack)
            margin = Spacing(bottom=event.size.height + STATUS_ROWS)
            if rack.styles.margin != margin:  # a change lays everything out again
                rack.styles.margin = margin
