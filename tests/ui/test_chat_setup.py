"""System prompt, preset and settings of a chat, changed in the middle of it."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, until
from textual.pilot import Pilot

from tui_chat.config import Config
from tui_chat.engine.echo import split_tokens
from tui_chat.presets import preset_path, presets_dir, read_preset
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import ChatSettings, Mode
from tui_chat.ui.app import TuiChat
from tui_chat.ui.preset_screen import PresetScreen

REVIEWER = """\
description = "Reviews a patch"
system_prompt = "Name every defect."
mode = "accuracy"

[modes.accuracy]
temperature = 0.3
max_new_tokens = 2
"""


@pytest.fixture(autouse=True)
def presets() -> Path:
    presets_dir().mkdir(parents=True)
    preset_path("reviewer").write_text(REVIEWER, encoding="utf-8")
    preset_path("warm").write_text("[modes.speed]\ntemperature = 1.2\n", encoding="utf-8")
    return presets_dir()


def page(app: TuiChat) -> str:
    """What stands on the screen, as one line."""
    return " ".join(shown(app).split())


async def said(pilot: Pilot[int], app: TuiChat, line: str, words: str) -> None:
    """Give a command and wait for what it says."""
    await command(pilot, line)
    await until(pilot, lambda: words in page(app) or words in told(app))


async def test_a_preset_is_followed_from_the_next_prompt_on_and_stored(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        await said(pilot, app, "/preset reviewer", "Preset reviewer: Reviews a patch")
        assert "accuracy" in page(app).rpartition("echo:")[2]
        await ask(pilot, "second")
        conversation = app.chat.session.conversation
    assert conversation.system_prompt == "Name every defect."
    reply = conversation.messages[-1]
    assert (reply.mode, reply.token_count, reply.finish_reason) == (Mode.ACCURACY, 2, "length")
    stored = ConversationStore(tmp_path).read(conversation.id).conversation
    assert stored.settings == ChatSettings(
        "reviewer", Mode.ACCURACY, accuracy={"temperature": 0.3, "max_new_tokens": 2}
    )
    assert stored.system_prompt == "Name every defect."


async def test_what_will_be_read_again_is_told_before_the_next_prompt_is_sent(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 50)) as pilot:
        await ready(pilot)
        await command(pilot, "/system Be brief.")
        await until(pilot, lambda: "The system prompt is set." in page(app))
        await ask(pilot, "first")
        unread, _ = app.chat.session.count_unread()
        await said(pilot, app, "/system Be long.", "are read again with the next prompt")
        now, cached = app.chat.session.count_unread()
        assert f"The system prompt is set; {now:,} tokens are read again" in page(app)
        assert now > unread and cached == 0
        await ask(pilot, "second question")
        metrics = app.chat.session.conversation.messages[-1].metrics
        assert metrics is not None
        read = metrics.prompt_tokens - metrics.cached_tokens
        assert read == now + len(split_tokens("second question"))
        # What changes back before anything was sent costs nothing.
        await said(pilot, app, "/system clear", "The system prompt is cleared; ")
        await said(pilot, app, "/system Be long.", "The system prompt is set.")


async def test_a_preset_is_chosen_from_a_list_that_names_the_broken_files(
    make_app: MakeApp,
) -> None:
    preset_path("broken").write_text("mode = 3\n", encoding="utf-8")
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/preset")
        await until(pilot, lambda: isinstance(app.screen, PresetScreen))
        await until(pilot, lambda: "Preset broken.toml on line 1" in page(app))
        await pilot.press(*"defect")
        await until(pilot, lambda: "warm" not in page(app))
        assert "Name every defect." in page(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.session.conversation.settings.preset == "reviewer")
        await said(pilot, app, "/preset", "chosen")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert app.chat.session.conversation.settings.preset == "reviewer"
    assert preset_path("broken").read_text(encoding="utf-8") == "mode = 3\n"


async def test_a_preset_that_is_not_there_changes_nothing(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await ready(pilot)
        before = app.chat.session.conversation
        await said(pilot, app, "/preset [/x]", "cannot be the name")
        await said(pilot, app, "/preset gone", "there are reviewer, warm")
        assert app.chat.session.conversation == before


async def test_no_preset_is_what_the_config_says(make_app: MakeApp) -> None:
    app = make_app(config=Config(system_prompt="Own."))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await said(pilot, app, "/preset reviewer", "Preset reviewer")
        assert app.chat.mode is Mode.ACCURACY
        await said(pilot, app, "/preset none", "No preset")
        conversation = app.chat.session.conversation
        assert (conversation.system_prompt, conversation.settings) == ("Own.", ChatSettings())
        assert app.chat.mode is Mode.SPEED


async def test_a_preset_without_text_and_mode_leaves_both(make_app: MakeApp) -> None:
    app = make_app(config=Config(system_prompt="Own."))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await said(pilot, app, "/preset reviewer", "Preset reviewer")
        await said(pilot, app, "/preset warm", "Preset warm")
        conversation = app.chat.session.conversation
        assert conversation.system_prompt == "Name every defect."
        assert conversation.settings == ChatSettings(
            "warm", Mode.ACCURACY, speed={"temperature": 1.2}
        )


async def test_the_setup_of_a_chat_is_saved_as_a_preset(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await said(pilot, app, "/system Be brief.", "is set")
        await said(pilot, app, "/set temperature 0.5", "temperature 0.5 in speed mode")
        await said(pilot, app, "/preset save short", "Preset short is saved")
        assert app.chat.session.conversation.settings.preset == "short"
        await said(pilot, app, "/preset save reviewer", "the file before is reviewer.toml.bak")
        await said(pilot, app, "/preset save a/b", "cannot be the name")
    saved = read_preset("short")
    assert saved.system_prompt == "Be brief."
    assert saved.settings == ChatSettings("short", Mode.SPEED, speed={"temperature": 0.5})
    assert read_preset("reviewer").description == "Reviews a patch"


async def test_settings_are_shown_changed_and_taken_back(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 50)) as pilot:
        await ready(pilot)
        await said(pilot, app, "/set max_new_tokens 3", "from the next reply on")
        await ask(pilot, "first")
        assert app.chat.session.conversation.messages[-1].token_count == 3
        await said(pilot, app, '/set stop_strings=["END"]', 'stop_strings ["END"] in speed mode')
        await said(pilot, app, "/set", "max_new_tokens 3 in this chat")
        assert "temperature as the model says" in page(app)
        await said(pilot, app, "/set max_new_tokens", "max_new_tokens as configured")
        assert dict(app.chat.session.conversation.settings.speed) == {"stop_strings": ("END",)}
        before = app.chat.session.conversation
        await said(pilot, app, "/set temperature 9", "temperature must be a number from 0.01 to 5")
        await said(pilot, app, "/set temprature 1", 'no setting "temprature"')
        await said(pilot, app, "/set top_k", "top_k is as the model says in speed mode")
        assert app.chat.session.conversation == before


async def test_the_system_prompt_is_edited_in_the_editor(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "\\nin two lines" >> "$1"\n', encoding="utf-8")
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))
    app = make_app(config=Config(system_prompt="Answer"))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        monkeypatch.setattr(app, "suspend", nullcontext)  # there is no terminal to give away
        await said(pilot, app, "/system edit", "The system prompt is set.")
        assert app.chat.session.conversation.system_prompt == "Answer\nin two lines"
        await said(pilot, app, "/system", "System prompt: Answer in two lines")
        monkeypatch.setenv("VISUAL", "/nowhere/editor")
        await said(pilot, app, "/system edit", "failed")
        assert app.chat.session.conversation.system_prompt == "Answer\nin two lines"


async def test_a_chat_keeps_its_mode_and_others_have_the_usual_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await said(pilot, app, "/preset reviewer", "Preset reviewer")
        await ask(pilot, "first")
        first = app.open_log.id
        await command(pilot, "/new")
        await until(pilot, lambda: app.open_log.id != first)
        assert app.chat.mode is Mode.SPEED
        await app._doer.open_chat(first)
        assert app.chat.mode is Mode.ACCURACY
        await pilot.press("shift+tab")
        await until(pilot, lambda: app.chat.mode is Mode.SPEED)
        assert app.chat.session.conversation.settings.mode is Mode.SPEED
        await command(pilot, "/new")
        await until(pilot, lambda: app.open_log.id != first)
        await app._doer.open_chat(first)
        assert app.chat.mode is Mode.SPEED
