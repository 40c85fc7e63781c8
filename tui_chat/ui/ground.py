"""Containers that show nothing but their ground, drawn in one step.

Textual draws such a row anew, cell by cell, for every container that lies under the text.
"""

from textual.containers import Vertical
from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.strip import Strip
from textual.widget import Widget


def blank_rows(widget: Widget, crop: Region) -> list[Strip]:
    """The rows of a widget without content, border and outline; see `Widget.render_lines`."""
    strip = Strip.blank(crop.width, widget.visual_style.rich_style)
    return filtered(widget, [strip]) * crop.height


def filtered(widget: Widget, strips: list[Strip]) -> list[Strip]:
    """The rows of a widget that draws itself, with the colours that the terminal can show."""
    background = widget.background_colors[1]
    for line_filter in widget.get_line_filters():
        strips = [strip.apply_filter(line_filter, background) for strip in strips]
    return strips


def measured_size() -> Reactive[Size]:
    """The `virtual_size` of a widget that says by itself when its place has to change.

    Textual asks for a second layout of the screen whenever the first one has measured a new size.
    """
    return Reactive(Size(0, 0), layout=False, repaint=False)


class Ground(Vertical):
    """A container that is as high as what it holds."""

    DEFAULT_CSS = "Ground { height: auto; }"

    virtual_size = measured_size()

    def render_lines(self, crop: Region) -> list[Strip]:
        styles = self.styles
        if any(edge for edge, _ in (*styles.border, *styles.outline)):
            return super().render_lines(crop)
        return blank_rows(self, crop)
