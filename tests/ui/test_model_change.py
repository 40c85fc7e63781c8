import asyncio
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from textual.pilot import Pilot

from tui_chat.config import Config, LoadedConfig
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine, LoadCancelled, LoadError, OnProgress
from tui_chat.engine.echo import EchoEngine
from tui_chat.types import LoadProgress, ModelSpec
from tui_chat.ui.app import TuiChat
from tui_chat.ui.model_screen import ModelScreen


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Wait for the app to get there; the test's own time limit is far away."""
    for _ in range(400):
        await pilot.pause()
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the app never got there")


async def ready(pilot: Pilot[int], app: TuiChat) -> None:
    await until(pilot, lambda: app.engine is not None)


async def send(pilot: Pilot[int], app: TuiChat, text: str) -> None:
    """Put a line into the box and send it."""
    app.chat.box.set_text(text)
    await pilot.press("enter")
    await pilot.pause()


async def ask(pilot: Pilot[int], app: TuiChat, text: str) -> None:
    """Send a prompt and wait for the end of the reply."""
    before = len(app.chat.session.conversation.messages)
    await send(pilot, app, text)
    await until(
        pilot,
        lambda: not app.chat.busy and len(app.chat.session.conversation.messages) == before + 2,
    )


def shown(app: TuiChat) -> str:
    """The whole screen as text."""
    return "\n".join(
        "".join(segment.text for segment in strip)
        for strip in app.screen._compositor.render_strips()
    )


def told(app: TuiChat) -> str:
    """The sentences of the toasts."""
    return " ".join(notification.message for notification in app._notifications)


async def test_unload_frees_the_model_and_a_prompt_waits_for_the_next_one(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await ask(pilot, app, "one")
        await send(pilot, app, "/unload")
        await until(pilot, lambda: "the model is unloaded" in shown(app))
        assert app.engine is None and app.chat.session.engine is None
        assert "no model" in shown(app).splitlines()[-1]
        assert "Ctrl+L loads one again" in shown(app)
        await send(pilot, app, "two")
        await until(pilot, lambda: "No model is loaded; Ctrl+L loads one." in told(app))
        assert "waiting" in shown(app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, ModelScreen))
        assert "F7 unload" not in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 4)
        await until(pilot, lambda: not app.chat.busy)
        contents = [message.content for message in app.chat.session.conversation.messages]
        assert contents[2] == "two"
        assert "answers from here on" not in shown(app)


async def test_unload_stops_a_running_reply_and_keeps_its_text(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 2000, rate=200.0)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await send(pilot, app, "go")
        await until(pilot, lambda: "word word" in shown(app))
        await send(pilot, app, "/unload")
        await until(pilot, lambda: "the model is unloaded" in shown(app))
        await until(pilot, lambda: not app.chat.busy)
        reply = app.chat.session.conversation.messages[-1]
        assert reply.status == "interrupted" and reply.content.startswith("word")


async def test_unload_says_so_when_there_is_nothing_to_unload(make_app: MakeApp) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: app.takes_keys.is_set())
        await send(pilot, app, "/unload")
        await until(pilot, lambda: "A model is being loaded" in told(app))
        gate.set()
        await ready(pilot, app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, ModelScreen))
        await pilot.press("f7")
        await until(pilot, lambda: "unloaded" in shown(app))
        await send(pilot, app, "/unload")
        await until(pilot, lambda: "No model is loaded." in told(app))


@pytest.mark.engine
async def test_unloading_leaves_nothing_of_a_real_model_in_memory(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(model="guide")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await ask(pilot, app, "What can you do?")
        engine: Any = app.engine
        held = [weakref.ref(engine._forward.model), weakref.ref(engine._cache)]
        held += [weakref.ref(tensor) for tensor in engine._forward.model.parameters()]
        del engine
        await send(pilot, app, "/unload")
        await until(pilot, lambda: "it held" in shown(app))
        await until(pilot, lambda: all(ref() is None for ref in held))
        await send(pilot, app, "/model guide")
        await ready(pilot, app)
        await ask(pilot, app, "What is the context?")


async def test_another_model_goes_on_with_the_chat_and_one_line_says_so(
    make_app: MakeApp, tmp_path: Path
) -> None:
    other = tmp_path / "other.md"
    other.write_text("From the other.", encoding="utf-8")
    app = make_app()
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot, app)
        await ask(pilot, app, "one")
        await send(pilot, app, f"/model echo:{other}")
        line = "echo:other.md answers from here on, not echo:reply.md"
        await until(pilot, lambda: line in shown(app))
        assert "one" in shown(app) and "That is all." in shown(app)
        await ask(pilot, app, "two")
        await until(pilot, lambda: "From the other." in shown(app))
        assert shown(app).count("answers from here on") == 1


async def test_where_no_model_could_be_loaded_the_hint_says_that_a_prompt_waits(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(model=f"echo:{tmp_path}/none.md")
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "choose another model" in shown(app))
        await until(pilot, lambda: "Enter queue" in shown(app))


async def test_a_smaller_window_of_the_next_model_is_planned_for_at_once(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="word " * 60, config=Config(reserved_tokens=16))
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot, app)
        for number in range(4):
            await ask(pilot, app, f"question {number}")
        assert "not sent" not in shown(app)
        assert app.engine is not None
        app.loaded = LoadedConfig(Config(context_window=128), app.loaded.path)
        await send(pilot, app, f"/model echo:{tmp_path}/reply.md")
        await until(pilot, lambda: app.engine is not None and app.engine.context_window == 128)
        await until(pilot, lambda: any(view.has_class("-dropped") for view in app.chat.query("*")))


async def test_only_the_last_of_two_models_chosen_at_once_stays(tmp_path: Path) -> None:
    gate, closed = threading.Event(), []

    class Closing(EchoEngine):
        """Tells that it was closed."""

        def close(self) -> None:
            closed.append(self.name)

    def open_slowly(spec: ModelSpec, *_: object) -> Engine:
        gate.wait()
        return Closing(Path(spec.model.removeprefix("echo:")), 0.0, None)

    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("Text.", encoding="utf-8")
    app = TuiChat(
        loaded=LoadedConfig(Config(), tmp_path / "config.toml"),
        spec=ModelSpec(f"echo:{tmp_path}/a.md"),
        data_dir=tmp_path,
        open_engine=open_slowly,
    )
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: app.takes_keys.is_set())
        await send(pilot, app, f"/model echo:{tmp_path}/b.md")
        gate.set()
        await ready(pilot, app)
        await until(pilot, lambda: closed == ["echo:a.md"])
        assert app.engine is not None and app.engine.name == "echo:b.md"


class Hub:
    """A hub that has one model, org/name, which repeats one file; tests let its download end."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "other.md"
        self.script.write_text("From the other.", encoding="utf-8")
        self.may_end = threading.Event()
        self.fault: Exception | None = None

    def download(self, spec: ModelSpec, report: OnProgress, cancel: threading.Event) -> None:
        while not self.may_end.wait(0.02):
            report(LoadProgress("downloading", 0.25, "org/name: 1.0 of 4.0 GB · 12.0 MB/s"))
            if cancel.is_set():
                raise LoadCancelled(
                    "The download was cancelled; files that were finished are kept."
                )
        if self.fault is not None:
            raise self.fault

    def open(
        self,
        spec: ModelSpec,
        report: OnProgress,
        cancel: threading.Event,
        make_room: Callable[[], None],
    ) -> Engine:
        if spec.model == "org/name":
            self.download(spec, report, cancel)
            make_room()
            spec = replace(spec, model=f"echo:{self.script}")
        return open_engine(spec, report, cancel, make_room)

    def app(self, model: str, rate: float = 0.0) -> TuiChat:
        folder = self.script.parent
        app = TuiChat(
            loaded=LoadedConfig(Config(), folder / "config.toml"),
            spec=ModelSpec(model, echo_rate=rate),
            data_dir=folder,
            open_engine=self.open,
        )
        app.models.download = self.download
        return app


async def test_ctrl_c_cancels_a_download_without_which_there_is_no_model(tmp_path: Path) -> None:
    app = Hub(tmp_path).app("org/name")
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "Ctrl+C cancel" in shown(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "files that were finished are kept" in shown(app))
        assert "Ctrl+C again" not in told(app)
        assert "not loaded" in shown(app)


async def test_the_chat_goes_on_while_a_model_is_downloaded(tmp_path: Path) -> None:
    script = tmp_path / "a.md"
    script.write_text("Text.", encoding="utf-8")
    app = Hub(tmp_path).app(f"echo:{script}")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await send(pilot, app, "/model org/name")
        await until(pilot, lambda: "12.0 MB/s" in shown(app) and "/stop cancel" in shown(app))
        await ask(pilot, app, "one")
        await until(pilot, lambda: "12.0 MB/s" in shown(app) and "/stop cancel" in shown(app))
        app.chat.box.set_text("two")
        await pilot.press("ctrl+c")  # clears the box, as always
        await until(pilot, lambda: app.chat.box.text == "")
        await ask(pilot, app, "three")
        assert app.chat.session.conversation.messages[-1].content == "Text."
        await send(pilot, app, "/stop")
        await until(pilot, lambda: "files that were finished are kept" in shown(app))
        assert "echo:a.md is still loaded and answers" in shown(app)
        assert "12.0 MB/s" not in shown(app)
        await send(pilot, app, "/model org/name")
        await until(pilot, lambda: "12.0 MB/s" in shown(app))
        assert "are kept" not in shown(app)


async def test_a_downloaded_model_is_loaded_once_the_reply_has_ended(tmp_path: Path) -> None:
    script = tmp_path / "a.md"
    script.write_text("word " * 400, encoding="utf-8")
    hub = Hub(tmp_path)
    app = hub.app(f"echo:{script}", rate=200.0)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await send(pilot, app, "/model org/name")
        await send(pilot, app, "one")
        await until(pilot, lambda: "writing" in shown(app))
        hub.may_end.set()
        await until(pilot, lambda: app.engine is not None and app.engine.name == "echo:other.md")
        first = app.chat.session.conversation.messages[1]
        assert (first.status, first.content.split()) == ("complete", ["word"] * 400)
        await ask(pilot, app, "two")
        assert app.chat.session.conversation.messages[-1].content == "From the other."
        assert "answers from here on, not echo:a.md" in shown(app)


async def test_a_download_that_fails_while_one_reads_above_takes_nobody_away(
    tmp_path: Path,
) -> None:
    script = tmp_path / "a.md"
    script.write_text("\n\n".join(f"paragraph {n}" for n in range(60)), encoding="utf-8")
    hub = Hub(tmp_path)
    hub.fault = LoadError("The disk is full, so org/name could not be downloaded.")
    app = hub.app(f"echo:{script}")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await ask(pilot, app, "one")
        await send(pilot, app, "/model org/name")
        await pilot.press("pageup")
        await until(pilot, lambda: "12.0 MB/s" in shown(app) and "more below" in shown(app))
        place = app.chat.transcript.scroll_y
        hub.may_end.set()
        await until(pilot, lambda: "The disk is full" in told(app))
        await pilot.pause()
        assert app.chat.transcript.scroll_y == place
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "is still loaded and answers" in shown(app))


async def test_another_choice_ends_a_download(make_app: MakeApp, tmp_path: Path) -> None:
    script = tmp_path / "a.md"
    script.write_text("Text.", encoding="utf-8")
    hub = Hub(tmp_path)
    app = hub.app(f"echo:{script}")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        await send(pilot, app, "/model org/name")
        await until(pilot, lambda: "12.0 MB/s" in shown(app))
        before = app.engine
        await send(pilot, app, f"/model echo:{script}")
        await until(pilot, lambda: app.engine is not None and app.engine is not before)
        await until(pilot, lambda: "12.0 MB/s" not in shown(app))
        await ask(pilot, app, "one")
        assert "are kept" not in shown(app)


async def test_a_model_that_cannot_be_had_does_not_cost_the_loaded_one(
    make_app: MakeApp, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    app = make_app(model="guide")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, app)
        loaded = app.engine

        def page() -> str:
            """The screen without the ends of its rows."""
            return " ".join(shown(app).replace("▌", "").split())

        for sentence, name in (
            ("it has no config.json", str(empty)),
            ("HF_HUB_OFFLINE is set", "org/name"),
            ("Nothing answers at", "http://127.0.0.1:9/v1"),
        ):
            await send(pilot, app, f"/model {name}")
            await until(pilot, lambda said=sentence: said in page())
            assert app.engine is loaded
        await ask(pilot, app, "What is the context?")
