"""What an empty chat shows: what is starting, what to type, where the rest is."""

from collections.abc import Callable, Sequence

from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui_chat import __version__
from tui_chat.types import LoadProgress
from tui_chat.ui.ink import InkText, Line, OneLine, Part, paint
from tui_chat.ui.status_bar import progress_lines

STARTERS = ("What can you do?", "How do I load a bigger model?", "How do I copy code over SSH?")


class Starters(OptionList):
    """Prompts to pick from; the chosen one has the bar of what is yours."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        if not self.has_focus or self.scroll_offset.y + y != self.highlighted:
            return strip
        style = self.get_visual_style("option-list--option", "option-list--option-highlighted")
        bar = Visual.to_strips(self, paint(self.app, [("you", "▌")]), 1, 1, style)
        return Strip.join([*bar, strip.crop(1)])


def load_lines(progress: LoadProgress, stop_key: str = "") -> list[Line]:
    """How far the model has come, from the whole line to the short one.

    `stop_key` is the key that cancels it, where it is to be told.
    """
    head: Line = (("m", progress.stage),)
    stop: Line = (("k", f"  {stop_key}"), ("m", " cancel")) if stop_key else ()
    return [*([*line, *stop] for line in progress_lines(head, progress)), head]


def note_lines(news: Sequence[Line]) -> list[Part]:
    """What became of the model, a line each, and the blank row behind it."""
    return [part for line in news for part in (*line, "\n")]


def type_lines(ready: bool) -> list[Line]:
    """What to do first, from the whole line to the short one."""
    pick: Line = (("k", "Tab"), ("m", " and pick one:"))
    head = "Type a message" if ready else "Type now; it is sent when the model is ready"
    return [(("m", f"{head}, or "), *pick), (("m", "Type, or "), *pick)]


def where_lines(chats: int | None, key: Callable[[str], str]) -> list[Part]:
    """Where the rest is; `chats` is None until the stored ones are counted."""
    keys = (key("model"), key("chats"), key("help"))
    wide = max(map(len, keys)) + 2
    stored = "" if chats is None else " · none yet" if not chats else f" · {chats:,} stored"
    return [
        ("k", keys[0].ljust(wide)),
        ("m", "another model: a folder, or a Hugging Face name\n"),
        ("k", keys[1].ljust(wide)),
        ("m", f"your conversations{stored}\n"),
        ("k", keys[2].ljust(wide)),
        ("m", "all keys and commands"),
    ]


_HERE = "A language model runs inside this program.\nWhat you type stays on this machine."


def widgets(
    *, model: str, ready: bool, key: Callable[[str], str], server: str = ""
) -> list[Widget]:
    """The parts of the empty chat; all go with the first prompt."""
    there = f"The language model runs on the server {server}.\nWhat you type is sent there."
    starters = Starters(
        *(Option(starter) for starter in STARTERS), id="starters", classes="welcome", compact=True
    )
    small: Part = ("m", "  the small model that comes along; it knows this program")
    state: list[Line] = [[("ok", "ready")]] if ready else [[("m", "starting")]]
    return [
        OneLine(
            [[("you", "▌"), " ", ("hi", "tui-chat")]],
            [[("m", __version__)]],
            classes="title wordmark welcome",
        ),
        InkText(
            [there if server else _HERE],
            classes="para welcome",
        ),
        OneLine(
            [[("k", model), small], [("k", model)]] if model == "guide" else [[("k", model)]],
            classes="para0 welcome",
        ),
        OneLine(state, id="load-line", classes="para0 welcome"),
        InkText(id="load-notes", classes="para0 welcome"),
        OneLine(type_lines(ready), id="type-line", classes="para0 welcome"),
        starters,
        InkText(where_lines(None, key), id="where-lines", classes="para0 welcome"),
    ]
