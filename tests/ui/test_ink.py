from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.content import Content

from tui_chat.ui import themes
from tui_chat.ui.ink import (
    Column,
    InkText,
    Line,
    OneLine,
    Part,
    columns,
    gigabytes,
    meter,
    paint,
    seconds,
    thousands,
    when,
)


class Host(App[None]):
    """An app that shows one widget."""

    def __init__(self, *widgets: OneLine | InkText) -> None:
        super().__init__()
        self.widgets = widgets

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLE_DEFAULTS

    def compose(self) -> ComposeResult:
        yield from self.widgets


def plain(parts: Line) -> str:
    return "".join(part if isinstance(part, str) else part[1] for part in parts)


def words(parts: Line) -> list[str]:
    return [part[0] for part in parts if not isinstance(part, str)]


@pytest.mark.parametrize(
    ("part", "shown", "word"),
    [
        (0.0, "──────────", "it"),
        (0.05, "╸─────────", "it"),
        (0.5, "━━━━━─────", "it"),
        (0.75, "━━━━━━━╸──", "warn"),
        (0.95, "━━━━━━━━━╸", "err"),
        (1.7, "━━━━━━━━━━", "err"),
        (-1.0, "──────────", "it"),
    ],
)
def test_a_meter_shows_halves_and_warns_in_time(part: float, shown: str, word: str) -> None:
    parts = meter(part, 10)
    assert plain(parts) == shown
    assert words(parts)[0] == word


def test_a_meter_shows_the_draft_and_the_reserve_apart() -> None:
    parts = meter(0.4, 10, draft=0.2, reserve=0.1)
    assert plain(parts) == "━━━━━━───╌"
    assert words(parts) == ["it", "you", "off"]


@given(*[st.floats(0, 2)] * 3, st.integers(1, 60))
def test_a_meter_is_as_wide_as_asked(part: float, draft: float, reserve: float, cells: int) -> None:
    assert len(plain(meter(part, cells, draft=draft, reserve=reserve))) == cells


def test_columns_are_two_apart_and_aligned() -> None:
    row = columns(20, [("ab", 0, ""), ("7", -3, "m"), ("x", 2, "m")])
    assert plain(row) == "ab             7  x "


def test_a_column_that_is_too_long_ends_in_an_ellipsis() -> None:
    assert plain(columns(12, [("a long title", 0, ""), ("12 Nov", -6, "m")])) == "a l…  12 Nov"


@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.integers(-12, 12).filter(bool), st.just("m")),
        min_size=1,
        max_size=3,
    ),
    st.text(max_size=60),
    st.integers(50, 120),
)
def test_a_row_is_one_line_of_the_asked_width(fixed: list[Column], title: str, width: int) -> None:
    row = plain(columns(width, [(title, 0, ""), *fixed]))
    assert "\n" not in row
    if "\t" not in row:
        assert Content(row).cell_length == width


HOSTILE: Sequence[Part] = ["[red]a[/red]\x1b[2J", ("m", "\x9b31m$HOME"), ("hi", "\u202eb\x07")]


async def test_painted_text_is_literal_and_has_no_control_characters() -> None:
    app = Host()
    async with app.run_test():
        content = paint(app, HOSTILE)
        assert content.plain == "[red]a[/red]␛[2J�31m$HOME�b␇"


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
async def test_every_word_has_a_style_in_themes_that_are_not_ours(theme: str) -> None:
    parts: list[Part] = [(word, word) for word in WORDS]
    app = Host(InkText(parts))
    async with app.run_test(size=(80, 4)) as pilot:
        app.theme = theme
        await pilot.pause()
        strip = app.screen._compositor.render_strips(app.size)[0]
        assert "".join(segment.text for segment in strip).startswith("".join(WORDS))


WORDS = ("m", "off", "rule", "k", "hi", "hit", "rate", "you", "it", "ref", "warn", "err", "ok")


async def one_line(width: int, left: Sequence[Line], right: Sequence[Line] = ()) -> str:
    """What a `OneLine` of that width shows."""
    app = Host(OneLine(left, right))
    async with app.run_test(size=(width, 3)):
        return app.query_one(OneLine).render().plain  # type: ignore[union-attr]


VARIANTS: tuple[list[Line], list[Line]] = (
    [["a long left side"], ["left"], ["l"]],
    [["a long right side"], ["right"]],
)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, "a long left side       a long right side"),
        (35, "a long left side  a long right side"),
        (34, "left                         right"),
        (11, "left  right"),
        (10, "l    right"),
    ],
)
async def test_one_line_shows_the_longest_variant_that_fits(width: int, shown: str) -> None:
    assert await one_line(width, *VARIANTS) == shown


async def test_one_line_cuts_the_shortest_variant_when_nothing_fits() -> None:
    assert await one_line(6, [["abcdefghij"], ["abcdefgh"]], [["right"]]) == "abcde…"


async def test_one_line_may_have_one_side_only() -> None:
    assert await one_line(5, [["abcde"]]) == "abcde"
    assert await one_line(5, [], [["ab"]]) == "   ab"


async def test_shown_parts_replace_the_old_ones() -> None:
    line, block = OneLine([["old"]]), InkText(["old"])
    app = Host(line, block)
    async with app.run_test(size=(20, 6)) as pilot:
        line.show([["new"]])
        block.show(["two\nlines"])
        await pilot.pause()
        assert line.render().plain.strip() == "new"
        assert block.size.height == 2


def test_counts_and_sizes_are_short() -> None:
    assert [thousands(n) for n in (0, 999, 3627, 99_949, 131_072)] == [
        "0",
        "999",
        "3.6k",
        "99.9k",
        "131k",
    ]
    sizes = (0, 12, 340_000, 18_000_000, 994_000_000, 996_000_000, 15_200_000_000)
    assert [gigabytes(size) for size in sizes] == [
        "0 MB",
        "1 kB",
        "340 kB",
        "18 MB",
        "994 MB",
        "1.0 GB",
        "15.2 GB",
    ]


def test_durations_are_short() -> None:
    assert [seconds(s) for s in (0.002, 0.9994, 0.9996, 1.94, 125.0)] == [
        "2 ms",
        "999 ms",
        "1.0 s",
        "1.9 s",
        "2 min 05 s",
    ]


def test_a_duration_never_says_sixty_seconds() -> None:
    assert [seconds(s) for s in (99.97, 119.4, 119.7)] == [
        "1 min 40 s",
        "1 min 59 s",
        "2 min 00 s",
    ]


def test_times_are_as_short_as_they_can_be_told_apart() -> None:
    now = datetime(2026, 11, 18, 12, 0, tzinfo=UTC).astimezone()
    assert when(now - timedelta(minutes=5), now) == (now - timedelta(minutes=5)).strftime("%H:%M")
    assert when(now - timedelta(days=2), now) == "Mon"
    assert when(now - timedelta(days=6), now) == "Thu"
    assert when(now - timedelta(days=7), now) == "11 Nov"
    assert when(now - timedelta(days=700), now) == "2024"
    assert when(now + timedelta(days=3), now) == now.strftime("%H:%M")
