"""How often the screen changes while a reply is written."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds and rows; the defaults are for a terminal on this machine."""

    paint_seconds: float = 0.1
    """At least between two paintings of the text of a reply."""
    figures_seconds: float = 0.5
    """Between two paintings of the live figures."""
    frame_seconds: float = 0.0
    """At least between two frames, unless a key was pressed just before."""
    block: float = 0.16
    """Part of the view by which it scrolls at once when it follows a reply, a row at least: each
    time all of it is laid out and drawn anew."""
    reports_hovering: bool = True
    """Whether the terminal shall report a mouse that moves without a button."""
    animates: bool = True


LOCAL = Pace()
REMOTE = Pace(
    paint_seconds=0.25,
    figures_seconds=1.0,
    frame_seconds=0.1,
    block=0.25,
    reports_hovering=False,
    animates=False,
)
"""For a terminal at the other end of an SSH connection: few bytes, and none for show."""


def calm(pace: Pace) -> Pace:
    """The pace for readers whom motion disturbs: text comes once a second, half a view at once."""
    return replace(pace, paint_seconds=1.0, figures_seconds=2.0, block=0.5, animates=False)
