import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch  # noqa: F401  what fits is shown once torch is loaded
from huggingface_hub import constants
from textual.app import App
from textual.pilot import Pilot

from tui_chat.ui import themes
from tui_chat.ui.model_screen import ModelRow, ModelScreen, RungFit, find_models
from tui_chat.ui.search_list import RowList


def add_model(cache: Path, name: str, parameters: int = 1_000_000) -> None:
    """A model in the hub's cache; its weights are a hole of the right size in a real file."""
    base = cache / f"models--{name.replace('/', '--')}"
    folder = base / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("abc")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    tensor = {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}
    header = json.dumps({"model.layers.0.weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * parameters)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two models."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    add_model(folder, "Org/Small-Instruct", 600_000_000)
    add_model(folder, "Org/Vast-Instruct", 900_000_000_000)
    return folder


class Host(App[None]):
    """An app with nothing but the model screen; `chosen` is what it was dismissed with."""

    HORIZONTAL_BREAKPOINTS: ClassVar = [(0, "-narrow"), (110, "-normal"), (150, "-wide")]

    def __init__(self, current: str = "guide") -> None:
        super().__init__()
        self.current = current
        self.chosen: list[str | None] = []

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLE_DEFAULTS

    def on_mount(self) -> None:
        self.push_screen(ModelScreen(self.current), self.chosen.append)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for work on other threads; a test that waits in vain fails."""
    for _ in range(400):
        await pilot.pause(0.02)
        if condition():
            return
    raise AssertionError("nothing happened")


def text(pilot: Pilot[None]) -> list[str]:
    """The lines of the screen as plain text."""
    strips = pilot.app.screen._compositor.render_strips(pilot.app.size)
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def rows(pilot: Pilot[None]) -> list[str]:
    """The lines of the list that are not blank."""
    region = pilot.app.screen.query_one(RowList).region
    return [line for line in text(pilot)[region.y : region.bottom] if line.strip()]


def row(pilot: Pilot[None], name: str) -> str:
    """The row of one model; empty when there is none."""
    return next((line for line in rows(pilot) if name in line), "")


async def test_models_on_this_machine_are_listed_with_their_size(cache: Path) -> None:
    async with Host().run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Small-Instruct")))
        assert "1.2 GB" in row(pilot, "Org/Small-Instruct")
        assert "cached" in row(pilot, "Org/Small-Instruct")


async def test_the_current_model_is_marked_and_highlighted(cache: Path) -> None:
    async with Host("Org/Vast-Instruct").run_test() as pilot:
        await until(pilot, lambda: "loaded" in row(pilot, "Org/Vast-Instruct"))
        assert "▌" in row(pilot, "Org/Vast-Instruct")
        assert "loaded" not in row(pilot, "Org/Small-Instruct")


async def test_a_model_that_needs_too_much_memory_says_how_much_is_short(cache: Path) -> None:
    async with Host("Org/Vast-Instruct").run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: any("short" in line for line in text(pilot)))
        line = next(line for line in text(pilot) if "short" in line)
        assert "needs 18" in line and "GB free" in line


async def test_what_a_model_needs_is_estimated_for_this_machine(cache: Path) -> None:
    models = {model.name: model for model in find_models()[0]}
    assert models["Org/Vast-Instruct"].best is None
    cpu = models["Org/Small-Instruct"].rungs[-1]
    assert (cpu.label, cpu.needed_bytes) == ("CPU", 1_200_000_000)


async def test_nothing_is_estimated_before_torch_is_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert all(model.rungs == () for model in find_models()[0])
    assert "torch" not in sys.modules


async def test_enter_chooses_the_highlighted_model(cache: Path) -> None:
    app = Host("Org/Small-Instruct")
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.chosen == ["Org/Vast-Instruct"])


async def test_typing_filters_and_the_best_match_is_chosen(cache: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press(*"vast")
        await until(pilot, lambda: not row(pilot, "Small"))
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen == ["Org/Vast-Instruct"])


@pytest.mark.parametrize(
    ("typed", "kind"), [("Org/Small", "hub"), ("~/models/mine", "folder"), ("gpt2", "hub")]
)
async def test_a_typed_name_or_folder_is_taken_as_it_is(cache: Path, typed: str, kind: str) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press(*(character if character != "/" else "slash" for character in typed))
        await pilot.pause()
        assert kind in next(line for line in rows(pilot) if "▌" in line)
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen == [typed])


async def test_a_name_can_be_taken_before_the_list_is_read(cache: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await pilot.press(*"gpt2", "enter")
        await until(pilot, lambda: app.chosen == ["gpt2"])


async def test_escape_chooses_nothing(cache: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await pilot.press("escape")
        await until(pilot, lambda: app.chosen == [None])


async def test_a_name_with_markup_and_control_characters_is_shown_literally(cache: Path) -> None:
    add_model(cache, "[red]x[/red]\x9b2J")
    async with Host().run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: bool(row(pilot, "[red]x[")))
        assert not any("\x9b" in line for line in text(pilot))


@pytest.mark.parametrize("width", [40, 50, 80, 120, 200])
async def test_every_line_fits_at_any_width(cache: Path, width: int) -> None:
    async with Host("Org/Vast-Instruct").run_test(size=(width, 24)) as pilot:
        await until(pilot, lambda: "loaded" in row(pilot, "Org/Vast"))
        assert all(len(line) <= width for line in text(pilot))
        assert "Esc back" in text(pilot)[-1]


def test_the_best_rung_is_the_first_that_fits() -> None:
    rungs = (RungFit("4-bit", 5, 9, obstacle=True), RungFit("8-bit", 9, 8), RungFit("CPU", 9, 20))
    assert ModelRow("m", "cached", rungs=rungs).best == rungs[2]
    assert ModelRow("m", "cached", rungs=rungs[:2]).best is None
