"""The column of turns and notices: where each of them stands, and what the reader holds on to."""

from textual.geometry import Region
from textual.layout import WidgetPlacement
from textual.widget import Widget

from tui_chat.ui.ground import Ground


class Page(Ground):
    """What is mounted. It knows how far a layout has moved the view that is being read.

    Rows are counted from its top; the regions of widgets out of sight are not kept up to date.
    """

    def __init__(self) -> None:
        super().__init__(id="page")
        self._places: dict[Widget, Region] = {}
        self._held: Widget | None = None
        self._held_top = 0

    def turns(self) -> list[tuple[str, Widget]]:
        """The views of stored messages in their order, each with the id of its message."""
        children = ((getattr(view, "message_id", ""), view) for view in self.children)
        return [(message_id, view) for message_id, view in children if message_id]

    def is_in_rows(self, view: Widget, rows: range) -> bool:
        """Whether some of a view stands in these rows."""
        place = self._places.get(view)
        return place is not None and place.y < rows.stop and place.bottom > rows.start

    def hold(self, view: Widget | None) -> None:
        """Watch where a view stands, from the last layout on."""
        place = self._places.get(view) if view is not None else None
        self._held, self._held_top = view if place else None, place.y if place else 0

    def take_shift(self) -> int:
        """By how many rows the held view has moved down since the last call."""
        place = self._places.get(self._held) if self._held is not None else None
        if place is None:
            return 0
        shift, self._held_top = place.y - self._held_top, place.y
        return shift

    def process_layout(self, placements: list[WidgetPlacement]) -> list[WidgetPlacement]:
        """See `Widget.process_layout`."""
        self._places = {placement.widget: placement.region for placement in placements}
        return placements
