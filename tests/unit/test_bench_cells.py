import pyte
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.bench.cells import Cells

COLUMNS, LINES = 20, 6
numbers = st.integers(1, 9)
commands = st.one_of(
    st.text("ab é─", max_size=4),
    st.sampled_from(["\r", "\n", "\x1bM", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[2J"]),
    st.just("\x1b[r\x1b[1;1H"),
    st.builds("\x1b[{};{}H".format, st.integers(1, LINES), numbers),
    st.builds("\x1b[{}G".format, numbers),
    st.builds("\x1b[{}d".format, st.integers(1, LINES)),
    st.builds("\x1b[{};{}r".format, st.integers(1, 2), st.integers(3, LINES)),
    st.sampled_from(["\x1b[0;38;2;1;2;3m", "\x1b]0;title\x07", "\x1b[?25l", "\x1bPq\x1b\\"]),
)


@given(st.lists(commands, max_size=30), st.integers(1, 9))
def test_the_cells_are_those_of_a_whole_terminal(parts: list[str], size: int) -> None:
    text = "\x1b[?7l" + "".join(parts)
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.Stream(screen).feed(text.replace("\x1bPq\x1b\\", ""))
    cells = Cells(COLUMNS, LINES)
    data = text.encode()
    for start in range(0, len(data), size):
        cells.feed(data[start : start + size])
    assert cells.text == "\n".join(row.rstrip() for row in screen.display)


def test_the_alternate_screen_begins_empty() -> None:
    cells = Cells(COLUMNS, LINES)
    cells.feed(b"a shell")
    assert not cells.is_full_screen and cells.text.startswith("a shell")
    cells.feed(b"\x1b[?1049h")
    assert cells.is_full_screen and not cells.text.strip()


def test_a_wide_character_takes_two_cells() -> None:
    cells = Cells(COLUMNS, LINES)
    cells.feed("你好\x1b[1;5Hx".encode())
    assert cells.text.startswith("你好x\n")
