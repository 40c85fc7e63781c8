from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from textual.app import App
from textual.content import Content
from textual.pilot import Pilot

from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role
from tui_chat.ui import themes
from tui_chat.ui.chat_preview import ChatPreview
from tui_chat.ui.library_screen import Chosen, LibraryScreen
from tui_chat.ui.search_list import RowList, SearchField

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CHATS = (
    ("Backups for a small server", "a nightly script with restic, please"),
    ("Moving photos", "how do I copy 40 GB of photos off a laptop"),
    ("Cron or timers", "the unit that starts Restic must wait for the network"),
)
"""Title and prompt, the oldest first."""


def add_chat(store: ConversationStore, title: str, prompt: str, day: int = 0) -> str:
    log = store.create(title=title, model="Qwen/Qwen2.5-1.5B-Instruct")
    at = START + timedelta(days=day)
    log.append(Message(f"u{day}", Role.USER, prompt, at))
    log.append(Message(f"a{day}", Role.ASSISTANT, "Gladly.", at, parent_id=f"u{day}"))
    conversation_id = log.id
    log.close()
    return conversation_id


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path)


@pytest.fixture
def ids(store: ConversationStore) -> list[str]:
    """Ids of `CHATS`, in that order."""
    return [add_chat(store, title, prompt, day) for day, (title, prompt) in enumerate(CHATS)]


class Host(App[None]):
    """An app with nothing but the library; `opened` is what it was dismissed with."""

    def __init__(self, store: ConversationStore) -> None:
        super().__init__()
        self.store = store
        self.opened: list[Chosen | None] = []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLE_DEFAULTS

    def on_mount(self) -> None:
        self.push_screen(LibraryScreen(self.store), self.opened.append)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for work on other threads; a test that waits in vain fails."""
    for _ in range(400):
        await pilot.pause(0.02)
        if condition():
            return
    raise AssertionError("nothing happened")


def text(pilot: Pilot[None]) -> list[str]:
    """The lines of the screen as plain text."""
    size = pilot.app.size
    strips = pilot.app.screen._compositor.render_strips(size)
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def rows(pilot: Pilot[None]) -> list[str]:
    """The lines of the list that are not blank."""
    region = pilot.app.screen.query_one(RowList).region
    return [line for line in text(pilot)[region.y : region.bottom] if line.strip()]


def preview(pilot: Pilot[None]) -> str:
    """What the pane beside the list shows."""
    region = pilot.app.screen.query_one(ChatPreview).region
    lines = text(pilot)[region.y : region.bottom]
    return "\n".join(Content(line)[region.x :].plain for line in lines)


def marked(pilot: Pilot[None]) -> list[str]:
    """The texts on the screen that are styled as a hit, in the order of the lines."""
    ground = pilot.app.theme_variables["hit"]
    strips = pilot.app.screen._compositor.render_strips(pilot.app.size)
    return [
        segment.text
        for strip in strips
        for segment in strip
        if segment.style and segment.style.bgcolor and segment.style.bgcolor.name == ground.lower()
    ]


def shows(pilot: Pilot[None], *words: str) -> Callable[[], bool]:
    """Whether the list has one row for each of the words, in that order."""

    def condition() -> bool:
        lines = rows(pilot)
        return len(lines) == len(words) and all(
            word in line for word, line in zip(words, lines, strict=True)
        )

    return condition


Step = Callable[[Pilot[None]], Awaitable[None]]


async def test_chats_are_listed_last_used_first(store: ConversationStore, ids: list[str]) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, shows(pilot, "Cron or timers", "Moving photos", "Backups"))
        assert "Qwen2.5-1.5B" in rows(pilot)[0]
        await until(pilot, lambda: "3 chats" in text(pilot)[1])


async def test_enter_opens_the_highlighted_chat(store: ConversationStore, ids: list[str]) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.opened == [Chosen(ids[1])])


async def test_the_highlighted_row_has_the_bar_of_what_is_yours(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "down", "down", "up")
        await pilot.pause()
        assert ["▌" in line for line in rows(pilot)] == [False, True, False]


async def test_a_click_opens_a_chat(store: ConversationStore, ids: list[str]) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.click(RowList, offset=(6, 2))
        await until(pilot, lambda: app.opened == [Chosen(ids[0])])


async def test_escape_opens_nothing(store: ConversationStore, ids: list[str]) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await pilot.press("escape")
        await until(pilot, lambda: app.opened == [None])


async def test_typing_filters_the_titles(store: ConversationStore, ids: list[str]) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press(*"PHOTOS")
        await until(pilot, lambda: "Moving photos" in rows(pilot)[0])
        assert not any("Cron" in line for line in rows(pilot))


async def test_search_finds_messages_and_shows_the_text_around_the_hit(
    store: ConversationStore, ids: list[str]
) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press(*"restic")
        await until(
            pilot,
            shows(pilot, "Cron or timers", "starts Restic must", "Backups", "script with restic"),
        )
        await until(pilot, lambda: "2 hits in 2 chats" in text(pilot)[3])
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.opened == [Chosen(ids[0], "restic", "u0")])


async def test_a_hit_far_into_a_long_line_is_in_sight(store: ConversationStore) -> None:
    add_chat(store, "Letters", "z" * 70 + " needle " + "z" * 70)
    async with Host(store).run_test(size=(50, 16)) as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 1)
        await pilot.press(*"needle")
        await until(pilot, lambda: len(rows(pilot)) == 2)
        assert "needle" in rows(pilot)[1]


async def test_a_search_without_a_hit_says_so(store: ConversationStore, ids: list[str]) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press(*"[b]x")
        await until(pilot, lambda: any('No hit for "[b]x".' in line for line in text(pilot)))


async def test_an_empty_store_says_that_there_are_no_chats(store: ConversationStore) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await until(pilot, lambda: any("No chats yet" in line for line in text(pilot)))
        await pilot.press("f2", "ctrl+d", "ctrl+u", "down", "enter")
        await pilot.pause()
        assert app.opened == []


async def test_rename_is_on_disk(store: ConversationStore, ids: list[str], tmp_path: Path) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "f2", "ctrl+u", *"Pictures", "enter")
        await until(pilot, lambda: any("Pictures" in line for line in rows(pilot)))
    titles = {summary.id: summary.title for summary in ConversationStore(tmp_path).summaries()}
    assert titles[ids[1]] == "Pictures"


async def test_escape_keeps_the_title_and_stays_in_the_list(
    store: ConversationStore, ids: list[str]
) -> None:
    app = Host(store)
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("f2", *"xyz", "escape")
        await pilot.pause()
        assert store.summaries()[0].title == "Cron or timers"
        assert app.opened == []
        assert pilot.app.focused is pilot.app.screen.query_one("#library-find", SearchField)


async def test_delete_moves_the_chat_to_the_trash_and_undo_brings_it_back(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "ctrl+d")
        await until(pilot, shows(pilot, "Cron", "Backups"))
        assert [summary.id for summary in store.summaries()] == [ids[2], ids[0]]
        assert "Ctrl+U" in text(pilot)[-1]
        await pilot.press("ctrl+u")
        await until(pilot, shows(pilot, "Cron", "Moving photos", "Backups"))
        assert "▌" in rows(pilot)[1]
        assert len(store.summaries()) == 3


async def test_a_refusal_of_the_store_is_told_and_the_chat_stays(
    store: ConversationStore, ids: list[str], tmp_path: Path
) -> None:
    other = ConversationStore(tmp_path)
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        other.delete(ids[2])
        await pilot.press("ctrl+d")
        await until(pilot, lambda: len(pilot.app._notifications) == 1)
        assert [note.message for note in pilot.app._notifications] == [
            "There is no such chat to delete."
        ]


async def test_titles_are_shown_literally(store: ConversationStore) -> None:
    add_chat(store, "[red]x[/red] \x1b]52;c;AA\x07 tab\there $HOME", "hello")
    async with Host(store).run_test(size=(100, 20)) as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 1)
        assert "[red]x[/red] ␛]52;c;AA␇ tab here $HOME" in rows(pilot)[0]
        await pilot.press("f2")
        await pilot.pause()
        assert not any("\x1b" in line for line in text(pilot))


async def test_pasted_control_characters_do_not_reach_the_terminal(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        field = pilot.app.screen.query_one("#library-find", SearchField)
        field.insert_text_at_cursor("a\x1b[2Jb")
        await pilot.pause()
        assert field.value == "a␛[2Jb"


async def test_words_are_found_and_marked_in_any_order_and_case(
    store: ConversationStore, ids: list[str]
) -> None:
    add_chat(store, "Cafés", "Where is the Straße of the CAFÉS", day=5)
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 4)
        await pilot.press(*"strasse cafe")
        await until(pilot, shows(pilot, "Cafés", "Straße of the CAFÉS"))
        # Folded like the search itself, so that what is found is what is marked.
        assert marked(pilot) == ["Café", "Straße", "CAFÉ"]


async def test_a_chat_with_more_hits_says_how_many_more(store: ConversationStore) -> None:
    log = store.create(title="Needles")
    for number in range(4):
        log.append(Message(f"u{number}", Role.USER, f"needle {number}", START))
    log.close()
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 1)
        await pilot.press(*"needle")
        await until(pilot, shows(pilot, "Needles", "needle 3"))
        assert "+3 more" in rows(pilot)[1]
        await until(pilot, lambda: "4 hits in 1 chat" in text(pilot)[3])


# Pinned and archived


async def test_a_pinned_chat_stands_first_with_a_glyph_and_a_word_until_it_is_unpinned(
    store: ConversationStore, ids: list[str], tmp_path: Path
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "down", "f4")
        await until(pilot, shows(pilot, "◆ Backups", "Cron", "Moving"))
        assert "pinned" in rows(pilot)[0] and "▌" in rows(pilot)[0]
        assert [s.id for s in ConversationStore(tmp_path).summaries(pinned=True)] == [ids[0]]
        assert "F4 unpin" in text(pilot)[-1]
        await pilot.press("f4")
        await until(pilot, shows(pilot, "Cron", "Moving", "Backups"))
        assert store.summaries(pinned=True) == []


async def test_an_archived_chat_is_listed_and_searched_only_when_asked_for(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("f5")
        await until(pilot, shows(pilot, "Moving", "Backups"))
        await pilot.press(*"restic")
        await until(pilot, shows(pilot, "Backups", "script with restic"))
        await pilot.press("f6")
        await until(pilot, shows(pilot, "Backups", "restic", "▫ Cron", "starts Restic"))
        assert "archived" in rows(pilot)[2]
        await pilot.press("down", "f5")
        await until(pilot, shows(pilot, "Cron", "starts Restic", "Backups", "restic"))
        assert store.summaries(archived=True) == []


async def test_hits_in_archived_chats_alone_are_told(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("f5")
        await until(pilot, shows(pilot, "Moving", "Backups"))
        await pilot.press(*"network")
        sentence = 'No hit for "network". F6 shows 1 archived chat.'
        await until(pilot, lambda: any(sentence in line for line in text(pilot)))


async def test_archiving_is_taken_back_with_the_key_of_undo(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("down", "f5")
        await until(pilot, shows(pilot, "Cron", "Backups"))
        assert "Ctrl+U takes it back" in text(pilot)[-1]
        await pilot.press("ctrl+u")
        await until(pilot, shows(pilot, "Cron", "Moving", "Backups"))
        assert "▌" in rows(pilot)[1]


async def test_undo_takes_back_one_change_after_the_other(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test() as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.press("ctrl+d")
        await until(pilot, shows(pilot, "Moving photos", "Backups"))
        await pilot.press("f5")
        await until(pilot, shows(pilot, "Backups"))
        await pilot.press("ctrl+d")
        await until(pilot, lambda: not rows(pilot))
        for back in (("Backups",), ("Moving", "Backups"), ("Cron", "Moving", "Backups")):
            await pilot.press("ctrl+u")
            await until(pilot, shows(pilot, *back))
        assert "Ctrl+U" not in text(pilot)[-1]


# The preview


async def test_a_wide_screen_shows_the_last_messages_of_the_highlighted_chat(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: "starts Restic must wait" in preview(pilot))
        assert "Gladly." in preview(pilot) and "2 messages" in preview(pilot)
        await pilot.press("down")
        await until(pilot, lambda: "40 GB of photos" in preview(pilot))
        assert "Restic" not in preview(pilot)


async def test_a_narrow_screen_has_the_list_alone(store: ConversationStore, ids: list[str]) -> None:
    async with Host(store).run_test(size=(109, 24)) as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 3)
        await pilot.pause(0.2)
        assert not pilot.app.screen.query_one(ChatPreview).display
        await pilot.resize_terminal(110, 24)
        await until(pilot, lambda: "starts Restic must wait" in preview(pilot))


async def test_the_preview_of_a_hit_shows_the_messages_with_it_and_marks_the_words(
    store: ConversationStore, ids: list[str]
) -> None:
    log = store.create(title="Long")
    log.append(Message("u1", Role.USER, "the \x1b[31mneedle[/b] here", START))
    reply = "\n".join(f"line {number}" for number in range(30))
    reply += "\n```sh\nfind needle\n```\nend"
    log.append(Message("a1", Role.ASSISTANT, reply, START, "u1"))
    log.append(Message("u2", Role.USER, "unrelated", START, "a1"))
    log.close()
    async with Host(store).run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 4)
        await pilot.press(*"needle")
        await until(pilot, lambda: "find needle" in preview(pilot))
        shown = preview(pilot)
        assert "the ␛[31mneedle[/b] here" in shown and "unrelated" not in shown
        assert "… 29 lines …" in shown and "```" not in shown
        assert marked(pilot).count("needle") == 3  # one of them in the list


async def test_a_chat_that_is_gone_says_so_in_the_preview(
    store: ConversationStore, ids: list[str], tmp_path: Path
) -> None:
    async with Host(store).run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: "starts Restic must wait" in preview(pilot))
        ConversationStore(tmp_path).delete(ids[1])
        await pilot.press("down")
        await until(pilot, lambda: "There is no such chat" in preview(pilot))


@pytest.mark.parametrize("width", [40, 50, 60, 80, 120, 200])
async def test_every_row_stays_on_one_line_at_any_width(
    store: ConversationStore, ids: list[str], width: int
) -> None:
    add_chat(store, "長い" * 60, "also 漢字 " * 40, day=9)
    async with Host(store).run_test(size=(width, 16)) as pilot:
        await until(pilot, lambda: len(rows(pilot)) == 4)
        assert all(Content(line).cell_length <= width for line in text(pilot))
        assert rows(pilot)[0].rstrip().endswith(("Mar", "2026", ":00", "Tue"))


async def test_in_80_columns_all_keys_are_named_but_enter(
    store: ConversationStore, ids: list[str]
) -> None:
    async with Host(store).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "F2 rename · F4 pin · F5 archive" in text(pilot)[-1])
        assert "F6 archived · Esc back" in text(pilot)[-1]
