import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from rich.color import Color
from test_chat_flow import ask, ready, shown, told, until  # type: ignore[import-not-found]
from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Offset, Region
from textual.pilot import Pilot
from textual.screen import Screen
from textual.selection import SELECT_ALL, Selection
from textual.strip import Strip
from textual.widget import Widget

from tui_chat.types import Message, Role, Status
from tui_chat.ui.message_view import AssistantTurn, Reply
from tui_chat.ui.transcript import Transcript
from tui_chat.ui.user_turn import UserTurn

PROSE = "A paragraph of **several** words that is broken into rows where the page is narrow. " * 3


async def open_turn(pilot: Pilot[int]) -> AssistantTurn:
    """A reply on the page that nothing is written of."""
    app = await ready(pilot)
    turn: AssistantTurn = await app.chat.transcript.open_reply("id")
    return turn


async def open_reply(pilot: Pilot[int], text: str, *, block: int = 1) -> Reply:
    """A reply with this text on the page."""
    turn = await open_turn(pilot)
    turn.grow_by(block)
    turn.feed(text)
    reply = turn.query_one(Reply)
    await until(pilot, lambda: reply.source == text and reply.size.height > 0)
    return reply


def rows(reply: Reply) -> list[str]:
    return [reply.render_line(y).text.rstrip() for y in range(reply.size.height)]


async def test_a_selection_gives_the_text_as_it_was_before_it_was_broken_into_rows(
    make_app: MakeApp,
) -> None:
    code = "x = " + "1234567890" * 20
    async with make_app().run_test(size=(60, 60)) as pilot:
        reply = await open_reply(pilot, f"{PROSE}\n\n```python\n{code}\n```\n\nthe end")
        selected, _ = reply.get_selection(SELECT_ALL) or ("", "")
        assert PROSE.replace("**", "").strip() in selected
        assert f"\n{code}\n" in selected and "/copy" not in selected
        last = rows(reply).index("the end")
        part = Selection(Offset(4, last), Offset(7, last))
        assert reply.get_selection(part) == ("end", "\n")
        assert reply.get_selection(Selection(None, Offset(3, 0))) == ("A p", "\n")


async def test_a_selection_over_several_messages_has_the_cell_it_ends_on(
    make_app: MakeApp,
) -> None:
    app = make_app(reply="abcdefgh")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "question")
        turn, reply = app.screen.query_one(UserTurn), app.screen.query_one(Reply)
        for start, end in ((turn, reply), (reply, turn)):  # upwards it is the same
            await pilot.mouse_down(start, offset=(4, 0))
            await pilot.hover(end, offset=(4, 0))
            await pilot.mouse_up(end, offset=(4, 0))
            selected = app.screen.get_selected_text() or ""
            assert selected.rstrip().endswith("abcde"), selected
            app.screen.clear_selection()


async def test_text_can_be_selected_with_the_mouse(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(60, 40)) as pilot:
        reply = await open_reply(pilot, "one **two** three\n\nfour")
        await pilot.mouse_down(reply, offset=(4, 0))
        await pilot.hover(reply, offset=(2, 2))
        await pilot.mouse_up(reply, offset=(2, 2))
        assert pilot.app.screen.get_selected_text() == "two three\n\nfou"
        marked = pilot.app.screen.get_component_rich_style("screen--selection").bgcolor
        strip = reply.render_line(0)
        assert next(s.text for s in strip if s.style and s.style.bgcolor == marked) == "two"


async def test_a_narrower_terminal_breaks_the_rows_anew(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(100, 40)) as pilot:
        reply = await open_reply(pilot, PROSE)
        before = rows(reply)
        await pilot.resize_terminal(50, 40)
        await until(pilot, lambda: len(rows(reply)) > len(before))
        assert " ".join(rows(reply)) == " ".join(before)
        assert max(map(len, rows(reply))) <= 50


async def test_a_very_long_reply_is_whole_again_after_a_resize(make_app: MakeApp) -> None:
    text = "\n\n".join(f"Paragraph {number}. {PROSE}" for number in range(2_000))
    async with make_app().run_test(size=(100, 30)) as pilot:
        reply = await open_reply(pilot, text)
        await pilot.resize_terminal(60, 30)
        await until(pilot, lambda: reply.is_laid_out)
        selected, _ = reply.get_selection(SELECT_ALL) or ("", "")
        assert selected.split() == text.replace("**", "").split()


async def test_a_long_reply_that_comes_at_once_stays_whole_when_the_terminal_changes_meanwhile(
    make_app: MakeApp,
) -> None:
    text = "\n\n".join(f"Paragraph {number}. {PROSE}" for number in range(1_000))
    async with make_app().run_test(size=(100, 30)) as pilot:
        reply = await open_reply(pilot, "before")
        showing = asyncio.create_task(reply.show(text))
        await asyncio.sleep(0)
        assert rows(reply) == ["before"], "what was there is seen until the rest is ready"
        await pilot.resize_terminal(60, 30)
        await showing
        await until(pilot, lambda: reply.is_laid_out)
        selected, _ = reply.get_selection(SELECT_ALL) or ("", "")
        assert selected.split() == text.replace("**", "").split()
        assert max(map(len, rows(reply))) <= 60


async def test_a_theme_that_is_chosen_later_colours_what_is_shown(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 40)) as pilot:
        reply = await open_reply(pilot, "```python\nx = 'text'\n```")
        colours = []
        for theme in ("tidepool", "foreshore", "tidepool"):
            app.theme = theme
            await pilot.pause()
            colours.append([segment.style for segment in reply.render_line(1)])
        assert colours[0] == colours[2] != colours[1]


async def test_reasoning_is_folded_to_a_line_that_opens(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 40)) as pilot:
        turn = await open_turn(pilot)
        turn.feed_reasoning("First **this**.\n\n")
        await until(pilot, lambda: "▸ thinking" in shown(app))
        turn.feed_reasoning("Then that.")
        turn.feed("So it is.")
        await until(pilot, lambda: "So it is." in shown(app))
        assert " · 4 words" in shown(app)
        assert "▸ thought for" in shown(app) and "Then that." not in shown(app)
        await pilot.click(".reasoning")
        await until(pilot, lambda: "│First **this**." in shown(app).replace("│ ", "│"))
        assert "▾ thought for" in shown(app) and "Then that." in shown(app)
        await pilot.click(".reasoning")
        await until(pilot, lambda: "Then that." not in shown(app))


@pytest.mark.parametrize("status", ["interrupted", "failed"])
async def test_reasoning_that_never_came_to_an_answer_is_no_longer_called_thinking(
    make_app: MakeApp, status: Status
) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        turn = await open_turn(pilot)
        turn.feed_reasoning("First this.")
        await until(pilot, lambda: "▸ thinking" in shown(app))
        turn.feed_reasoning(" Then that.")
        now = datetime.now(UTC)
        message = Message("id", Role.ASSISTANT, "", now, reasoning="First this. Then that.")
        await turn.finish(replace(message, status=status, error="It broke."))
        await until(pilot, lambda: "▸ thought for" in shown(app))
        assert " · 4 words" in shown(app) and "thinking" not in shown(app)
        assert "sent with the next prompt" not in shown(app), "there is nothing to send"
        below = shown(app).split("▸ thought for")[1].split("\n")[1:3]
        assert [bool(line.strip()) for line in below] == [False, True]


async def test_text_in_reasoning_that_is_open_can_be_selected_and_copied(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(60, 40)) as pilot:
        turn = await open_turn(pilot)
        turn.feed_reasoning("First this.\nThen that.")
        turn.feed("So it is.")
        await until(pilot, lambda: "So it is." in shown(app))
        await pilot.click(".reasoning")
        await until(pilot, lambda: "Then that." in shown(app))
        await pilot.mouse_down(".reasoning", offset=(8, 1))
        await pilot.hover(".reasoning", offset=(5, 2))
        await pilot.mouse_up(".reasoning", offset=(5, 2))
        await pilot.pause()
        assert app.screen.get_selected_text() == "this.\nThen"
        assert "Then that." in shown(app)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "Copied the selection." in told(app))
        assert app.screen.get_selected_text() is None


async def test_what_is_typed_after_a_click_on_reasoning_stands_in_the_box(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(60, 40)) as pilot:
        turn = await open_turn(pilot)
        turn.feed_reasoning("First this.")
        await until(pilot, lambda: "▸ thinking" in shown(app))
        await pilot.click(".reasoning")
        await until(pilot, lambda: "First this." in shown(app))
        await pilot.press(*"then")
        assert app.chat.box.text == "then"


async def test_a_tab_in_reasoning_stands_as_spaces(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 40)) as pilot:
        turn = await open_turn(pilot)
        turn.feed_reasoning("First:\n\tfor x in y:\n\t\tpass")
        turn.feed("So `a\tb` it is.")
        await until(pilot, lambda: "it is." in shown(app))
        await pilot.click(".reasoning")
        await until(pilot, lambda: "│     for x in y:" in shown(app))
        assert "│         pass" in shown(app) and "\t" not in shown(app)
        strips = [strip for line in app.screen._compositor.render_strips() for strip in line]
        assert all("\t" not in segment.text for segment in strips)


async def test_text_that_comes_while_the_last_is_laid_out_stands_behind_it(
    make_app: MakeApp,
) -> None:
    parts = [f"part {number} " + "word " * 5_000 for number in range(8)]
    async with make_app().run_test(size=(80, 30)) as pilot:
        reply = await open_reply(pilot, "begin ")
        await asyncio.gather(*(reply.append(part) for part in parts))
        assert reply.source == "begin " + "".join(parts)


def drawn_rows(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The rows of the terminal that each frame draws, one after the other."""
    frames: list[set[int]] = []
    render = Compositor.render_partial_update

    def noting(compositor: Compositor) -> ChopsUpdate | None:
        update = render(compositor)
        if update is not None:
            frames.append({y for y, _, _ in update.spans})
        return update

    monkeypatch.setattr(Compositor, "render_partial_update", noting)
    return frames


async def test_a_reply_grows_by_blocks_and_only_a_block_lays_out_the_page_again(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().run_test(size=(60, 40)) as pilot:
        reply = await open_reply(pilot, "line 1", block=6)
        await reply.append("\n\nline 2")
        await until(pilot, lambda: reply.size.height == 6)
        await pilot.pause()
        layouts: list[Screen[None]] = []
        pilot.app.screen.screen_layout_refresh_signal.subscribe(reply, layouts.append)
        frames = drawn_rows(monkeypatch)
        await reply.append("\n\nline 3")
        await until(pilot, lambda: bool(frames))
        await pilot.pause()
        assert rows(reply) == ["line 1", "", "line 2", "", "line 3", ""]
        assert not layouts
        assert [len(drawn) for drawn in frames] == [2]
        await reply.append("\n\nline 4")
        await until(pilot, lambda: reply.size.height == 12)
        await pilot.pause()
        assert len(layouts) == 1
        # The growth has drawn what there was: only what is new is drawn behind it.
        frames.clear()
        await reply.append("\n\nline 5")
        await until(pilot, lambda: bool(frames))
        await pilot.pause()
        assert [len(drawn) for drawn in frames] == [2]


async def test_a_page_that_follows_a_reply_and_its_scroll_bar_are_one_frame(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().run_test(size=(60, 20)) as pilot:
        reply = await open_reply(pilot, "\n\n".join(map(str, range(20))))
        transcript = reply.screen.query_one(Transcript)
        transcript.follow()
        await until(pilot, lambda: transcript.show_vertical_scrollbar and transcript.at_end)
        await pilot.pause()
        bar = transcript.vertical_scrollbar
        frames = drawn_rows(monkeypatch)
        size = bar.window_virtual_size
        await reply.append("\n\nmore\n\nand more")
        await until(pilot, lambda: bar.window_virtual_size == size + 4)
        await pilot.pause()
        await pilot.pause()
        assert len(frames) == 1


def look(strip: Strip) -> tuple[str, Color | None, Color | None, bool | None, object]:
    """What of a cell is seen and clicked; a blank has no ink."""
    (cell,) = strip
    assert cell.style is not None
    has_ink = cell.style.reverse or cell.text != " "
    ink = cell.style.color if has_ink else None
    return cell.text, ink, cell.style.bgcolor, cell.style.reverse, cell.style.meta


async def test_the_scroll_bar_of_a_page_looks_like_any_other(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(60, 20)) as pilot:
        reply = await open_reply(pilot, "\n\n".join(map(str, range(40))))
        transcript = reply.screen.query_one(Transcript)
        await until(pilot, lambda: transcript.show_vertical_scrollbar)
        bar = transcript.vertical_scrollbar
        for y in range(0, transcript.max_scroll_y, 7):
            transcript.scroll_to(y=y, animate=False, immediate=True)
            await pilot.pause()
            whole = bar.size.region
            ours, theirs = bar.render_lines(whole), Widget.render_lines(bar, whole)
            assert [*map(look, ours)] == [*map(look, theirs)]
            assert bar.render_lines(Region(0, 3, 1, 2)) == ours[3:5]
