"""The scroll bar of a page, drawn in one step.

A page that follows a reply moves its bar with nearly every frame, and Textual draws each cell of
one as a line of text with a ground, an alignment and edges.
"""

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.strip import Strip

from tui_chat.ui.ground import filtered


class PageBar(ScrollBar):
    """A bar at the right; it looks and acts as Textual's."""

    def render_lines(self, crop: Region) -> list[Strip]:
        """See `Widget.render_lines`."""
        bar = self.render()
        assert isinstance(bar, ScrollBarRender) and isinstance(bar.style, Style)
        assert bar.style.bgcolor is not None and bar.style.color is not None
        cells = bar.render_bar(
            size=self.size.height,
            virtual_size=bar.virtual_size,
            window_size=bar.window_size,
            position=bar.position,
            thickness=self.size.width,
            back_color=bar.style.bgcolor,
            bar_color=bar.style.color,
        ).segments
        ground = Style(bgcolor=bar.style.bgcolor)
        # Most cells are one and the same, and drawn once.
        strips = {
            id(cell): Strip(Segment.apply_style([cell], ground), self.size.width)
            for cell in {id(cell): cell for cell in cells}.values()
        }
        return filtered(self, [strips[id(cell)] for cell in cells[crop.y : crop.bottom]])
