"""Containers that show nothing but their ground, drawn in one step.

Textual draws such a row anew, cell by cell, for every container that lies under the text.
"""

from textual.containers import Vertical
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


def blank_rows(widget: Widget, crop: Region) -> list[Strip]:
    """The rows of a widget without content, border and outline; see `Widget.render_lines`."""
    strip = Strip.blank(crop.width, widget.visual_style.rich_style)
    background = widget.background_colors[1]
    for line_filter in widget.get_line_filters():
        strip = strip.apply_filter(line_filter, background)
    return [strip] * crop.height


class Ground(Vertical):
    """A container that is as high as what it holds."""

    DEFAULT_CSS = "Ground { height: auto; }"

    def render_lines(self, crop: Region) -> list[Strip]:
        styles = self.styles
        if any(edge for edge, _ in (*styles.border, *styles.outline)):
            return super().render_lines(crop)
        return blank_rows(self, crop)
