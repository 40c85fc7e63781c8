from hypothesis import example, given
from hypothesis import strategies as st

from tui_chat.ui.ink import Line
from tui_chat.ui.plot import bars, ceiling


def text(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part[1] for part in line)


def test_bars_stand_on_zero_and_fill_the_rows_to_the_top() -> None:
    assert [text(line) for line in bars([0, 4, 8, 12, 16], 16, rows=2, width=9)] == [
        "      ▄ █",
        "▁ ▄ █ █ █",
    ]


def test_unknown_value_leaves_a_gap() -> None:
    assert [text(line) for line in bars([8, None, 8], 8, rows=1, width=5)] == ["█   █"]


def test_bars_close_up_and_then_the_oldest_go() -> None:
    assert text(bars([1, 2, 3, 4], 8, rows=1, width=6)[0]) == "▁▂▃▄"
    assert text(bars([1, 2, 3, 4], 8, rows=1, width=3)[0]) == "▂▃▄"


def test_newest_bar_alone_is_bright() -> None:
    (line,) = bars([1, 2, 3], 8, rows=1, width=9)
    assert line == (("past", "▁ ▂ "), ("it", "▃"))


@given(
    st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=50),
    st.integers(1, 5),
    st.integers(1, 40),
)
@example([5e-324], 1, 1)
def test_bars_never_leave_their_place(values: list[float | None], rows: int, width: int) -> None:
    top = ceiling(max((value for value in values if value is not None), default=0.0))
    lines = bars(values, top, rows=rows, width=width)
    assert len(lines) == rows
    assert all(len(text(line)) <= width for line in lines)
    # What is known has a bar, what is not has none.
    *_, lowest = lines
    assert (text(lowest)[-1] == " ") == (values[-1] is None)


@given(st.floats(1e-6, 1e12))
def test_top_of_a_plot_is_round_and_not_far_above(value: float) -> None:
    assert value <= ceiling(value) <= 1.51 * value
    assert len(f"{ceiling(value):.10g}".strip("0.").replace(".", "").rstrip("0").split("e")[0]) <= 2
