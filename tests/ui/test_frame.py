"""What is sent brings a terminal to the same cells as sending everything anew."""

from itertools import pairwise

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui_chat.ui.frame import Frame

WIDTH, HEIGHT = 20, 10
STYLES = [None, Style(bold=True), Style(color="#ff0000"), Style(color="#00ff00", bgcolor="#111111")]
texts = st.text("ab ─│你🙂é", max_size=WIDTH)
segments = st.tuples(texts, st.sampled_from(STYLES)).map(lambda pair: Segment(*pair))


def strip_of(parts: list[Segment]) -> Strip:
    return Strip(parts).adjust_cell_length(WIDTH)


strips = st.lists(segments, max_size=4).map(strip_of)
screens = st.lists(strips, min_size=HEIGHT, max_size=HEIGHT)


class Terminal:
    """A terminal that is drawn on by a `Frame`."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.Stream(self.screen)
        self.sent = 0

    def feed(self, text: str) -> None:
        self.sent = len(text)
        self._stream.feed(text)

    def cells(self) -> list[list[pyte.screens.Char]]:
        return [[self.screen.buffer[y][x] for x in range(WIDTH)] for y in range(HEIGHT)]


def layout(rows: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[row] for row in rows], Region(0, 0, WIDTH, HEIGHT))


def anew(rows: list[Strip]) -> list[list[pyte.screens.Char]]:
    terminal = Terminal()
    frame = Frame()
    frame.apply(layout(rows), (WIDTH, HEIGHT))
    terminal.feed(frame.flush((0, 0), ColorSystem.TRUECOLOR))
    return terminal.cells()


def text_of(row: Strip) -> str:
    return row.text.rstrip()


@given(screens)
def test_the_first_frame_shows_every_row(rows: list[Strip]) -> None:
    terminal = Terminal()
    frame = Frame()
    frame.apply(layout(rows), (WIDTH, HEIGHT))
    terminal.feed(frame.flush((3, 4), ColorSystem.TRUECOLOR))
    assert [line.rstrip() for line in terminal.screen.display] == [text_of(row) for row in rows]
    assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (3, 4)


@st.composite
def histories(draw: st.DrawFn) -> list[list[Strip]]:
    """Screens that follow each other: some rows change, some blocks move."""
    rows = draw(screens)
    history = [rows]
    for _ in range(draw(st.integers(1, 4))):
        rows = list(rows)
        if draw(st.booleans()):
            top = draw(st.integers(0, HEIGHT - 2))
            bottom = draw(st.integers(top + 1, HEIGHT))
            by = draw(st.integers(-HEIGHT, HEIGHT))
            block = rows[top:bottom]
            new = [draw(strips) for _ in range(min(abs(by), len(block)))]
            rows[top:bottom] = [*block[by:], *new] if by > 0 else [*new, *block[: len(block) + by]]
            rows = (rows + [Strip.blank(WIDTH)] * HEIGHT)[:HEIGHT]
        for y in draw(st.lists(st.integers(0, HEIGHT - 1), max_size=3)):
            rows[y] = draw(strips)
        history.append(rows)
    return history


@given(histories(), st.lists(st.booleans(), min_size=5, max_size=5))
def test_any_change_ends_in_the_same_cells_also_when_frames_are_skipped(
    history: list[list[Strip]], sent: list[bool]
) -> None:
    terminal = Terminal()
    frame = Frame()
    for number, rows in enumerate(history):
        frame.apply(layout(rows), (WIDTH, HEIGHT))
        if sent[number] or rows is history[-1]:
            terminal.feed(frame.flush((0, 0), ColorSystem.TRUECOLOR))
            assert terminal.cells() == anew(rows)


@given(screens, st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), segments)
def test_a_part_of_a_row_can_be_drawn_alone(
    rows: list[Strip], y: int, x: int, segment: Segment
) -> None:
    part = Strip([segment]).crop(0, WIDTH - x)
    if not part.cell_length:
        return
    end = x + part.cell_length
    terminal = Terminal()
    frame = Frame()
    frame.apply(layout(rows), (WIDTH, HEIGHT))
    terminal.feed(frame.flush((0, 0), ColorSystem.TRUECOLOR))
    cuts = sorted({0, x, end, WIDTH})
    # Outside of what is to be drawn anything may stand.
    other = Strip([Segment("#" * WIDTH)])
    chops: list[dict[int, Strip | None]] = [{} for _ in range(HEIGHT)]
    for cut, next_cut in pairwise(cuts):
        chops[y][cut] = part if cut == x else other.crop(cut, next_cut)
    ends = [cuts[1:] for _ in range(HEIGHT)]
    frame.apply(ChopsUpdate(chops, [(y, x, end)], ends), (WIDTH, HEIGHT))
    terminal.feed(frame.flush((0, 0), ColorSystem.TRUECOLOR))
    rows[y] = Strip.join([rows[y].crop(0, x), part, rows[y].crop(end, WIDTH)])
    assert terminal.cells() == anew(rows)


def lines(first: int) -> list[Strip]:
    """A page of numbered rows with a scrollbar."""
    rows = []
    for y in range(HEIGHT):
        bar = Segment(" ", STYLES[3] if y == first % HEIGHT else STYLES[1])
        rows.append(Strip([Segment(f"row number {first + y}".ljust(WIDTH - 1), STYLES[2]), bar]))
    return rows


@pytest.mark.parametrize("by", [1, 3, -1, -4])
def test_rows_that_scroll_are_moved_and_not_sent_again(by: int) -> None:
    terminal = Terminal()
    frame = Frame()
    frame.apply(layout(lines(20)), (WIDTH, HEIGHT))
    terminal.feed(frame.flush((0, 0), ColorSystem.TRUECOLOR))
    whole = terminal.sent
    frame.apply(layout(lines(20 + by)), (WIDTH, HEIGHT))
    text = frame.flush((0, 0), ColorSystem.TRUECOLOR)
    assert text.count("row number") == abs(by)
    terminal.feed(text)
    assert terminal.cells() == anew(lines(20 + by))
    assert terminal.sent < whole


def test_nothing_is_sent_for_what_is_shown_already() -> None:
    frame = Frame()
    frame.apply(layout(lines(1)), (WIDTH, HEIGHT))
    frame.flush((0, 0), ColorSystem.TRUECOLOR)
    frame.apply(layout(lines(1)), (WIDTH, HEIGHT))
    assert frame.flush((0, 0), ColorSystem.TRUECOLOR) == ""
    assert frame.flush((1, 0), ColorSystem.TRUECOLOR) != ""


def test_everything_is_sent_again_to_a_terminal_that_may_show_anything() -> None:
    frame = Frame()
    frame.apply(layout(lines(1)), (WIDTH, HEIGHT))
    first = frame.flush((0, 0), ColorSystem.TRUECOLOR)
    frame.forget()
    assert frame.flush((0, 0), ColorSystem.TRUECOLOR) == first


def test_a_terminal_of_another_size_is_drawn_anew() -> None:
    frame = Frame()
    frame.apply(layout(lines(1)), (WIDTH, HEIGHT))
    frame.flush((0, 0), ColorSystem.TRUECOLOR)
    rows = [Strip([Segment("new".ljust(30))])] * 3
    frame.apply(LayoutUpdate([[row] for row in rows], Region(0, 0, 30, 3)), (30, 3))
    assert frame.flush((0, 0), ColorSystem.TRUECOLOR).count("new") == 3


def test_no_command_in_a_text_reaches_the_terminal() -> None:
    frame = Frame()
    row = Strip([Segment("a\x1b]0;x\x07b\x9bc\u202ed", Style(bold=True))]).adjust_cell_length(WIDTH)
    frame.apply(layout([row] * HEIGHT), (WIDTH, HEIGHT))
    text = frame.flush((0, 0), ColorSystem.TRUECOLOR)
    assert "a]0;xbcd" in text and "\x07" not in text and "\x9b" not in text


def test_a_row_with_characters_of_uncertain_width_is_sent_whole() -> None:
    frame = Frame()
    rows = [strip_of([Segment("🙂 one")]), *[Strip.blank(WIDTH)] * (HEIGHT - 1)]
    frame.apply(layout(rows), (WIDTH, HEIGHT))
    frame.flush((0, 0), ColorSystem.TRUECOLOR)
    rows[0] = strip_of([Segment("🙂 two")])
    frame.apply(layout(rows), (WIDTH, HEIGHT))
    assert "🙂 two" in frame.flush((0, 0), ColorSystem.TRUECOLOR)
    assert cell_len("🙂") == 2
