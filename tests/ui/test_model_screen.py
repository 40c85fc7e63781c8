import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch  # noqa: F401  what fits is shown once torch is loaded
from huggingface_hub import constants
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from tui_chat.config import Config
from tui_chat.engine.checkpoint import read_checkpoint
from tui_chat.engine.hardware import Device, Hardware
from tui_chat.engine.hub_lookup import HubModel
from tui_chat.types import Precision
from tui_chat.ui import themes
from tui_chat.ui.model_rows import ModelChoice, ModelRow, RungFit, find_models, with_rungs
from tui_chat.ui.model_screen import UNLOAD, ModelScreen
from tui_chat.ui.search_list import RowList

GB = 1_000_000_000
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
WITH_CACHE = {
    **LLAMA,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 32_768,
}
"""A token adds 4,096 bytes to the KV cache."""


def add_model(
    cache: Path, name: str, parameters: int = 1_000_000, config: dict[str, object] | None = None
) -> None:
    """A model in the hub's cache; its weights are a hole of the right size in a real file."""
    base = cache / f"models--{name.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("abc")
    save_model(base / "snapshots" / "abc", parameters, config)


def save_model(
    folder: Path, parameters: int = 1_000_000, config: dict[str, object] | None = None
) -> None:
    """The files of a model, its weights a hole."""
    folder.mkdir(parents=True)
    config = config or dict(LLAMA)
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

    def __init__(self, current: str = "guide", config: Config | None = None) -> None:
        super().__init__()
        self.current = current
        self.config = config
        self.answers: list[ModelChoice | Literal["unload"] | None] = []

    @property
    def chosen(self) -> list[str | None]:
        """The names of the models that were chosen."""
        return [item.name if isinstance(item, ModelChoice) else item for item in self.answers]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLE_DEFAULTS

    def on_mount(self) -> None:
        self.push_screen(ModelScreen(self.current, self.config), self.answers.append)


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


def flowing(pilot: Pilot[None]) -> str:
    """The whole screen with its lines joined by single spaces, so that wrapping does not matter."""
    return " ".join(" ".join(text(pilot)).split())


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


def machine(free: int, *, gpu: int = 0) -> Hardware:
    """A machine with so many bytes free in memory, and on a GPU."""
    gpus = (Device("cuda:0", "Test GPU", gpu, gpu),) if gpu else ()
    return Hardware(Device("cpu", "CPU", free, free), gpus)


def estimated(name: str, hardware: Hardware, window: int | None = None) -> ModelRow:
    """A model of the cache, with its needs on some machine."""
    models = {model.name: model for model in find_models()[0]}
    return with_rungs(models[name], hardware, "auto", window)


def test_all_rungs_of_a_cpu_are_estimated_in_the_order_they_are_tried(cache: Path) -> None:
    model = estimated("Org/Small-Instruct", machine(1_000_000_000))
    assert [(rung.label, rung.needed_bytes) for rung in model.rungs] == [
        ("CPU", 1_200_000_000),
        ("CPU 8-bit", 630_000_000 + 200_000_000),
        ("CPU 4-bit", 348_000_000 + 200_000_000),
    ]
    assert model.best is model.rungs[1]
    assert model.rungs[0].short_bytes == 200_000_000


def test_all_rungs_of_a_gpu_come_before_those_of_the_cpu(cache: Path) -> None:
    model = estimated("Org/Small-Instruct", machine(20 * GB, gpu=2 * GB))
    labels = [rung.label for rung in model.rungs]
    assert labels == ["4-bit", "8-bit", "16-bit", "CPU", "CPU 8-bit", "CPU 4-bit"]
    assert model.best is model.rungs[0]


def test_the_cache_of_the_chosen_window_is_counted_apart_from_the_weights(cache: Path) -> None:
    add_model(cache, "Org/Cached", 600_000_000, WITH_CACHE)
    own = estimated("Org/Cached", machine(20 * GB)).rungs[0]
    assert (own.cache_tokens, own.cache_bytes) == (4096, 4096 * 4096)
    long = estimated("Org/Cached", machine(20 * GB), 16_384).rungs[0]
    assert (long.weights_bytes, long.cache_bytes) == (1_200_000_000, 16_384 * 4096)
    assert long.needed_bytes == long.weights_bytes + long.cache_bytes


def test_a_rung_that_fits_and_is_not_tried_says_why(cache: Path) -> None:
    add_model(cache, "Org/Tiny", 1_000_000)
    model = estimated("Org/Tiny", machine(20 * GB, gpu=2 * GB))
    assert "would save next to nothing" in model.rungs[0].obstacle
    assert model.best is model.rungs[2]


def test_without_torch_a_machine_with_a_gpu_is_not_estimated(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("tui_chat.engine.hardware._GPU_NODES", (str(tmp_path),))
    assert find_models()[2] is None
    monkeypatch.setattr("tui_chat.engine.hardware._GPU_NODES", (str(tmp_path / "none"),))
    hardware = find_models()[2]
    assert hardware is None or hardware.gpus == ()  # None where the system is not Linux
    assert "torch" not in sys.modules


async def test_the_screen_tells_weights_and_cache_and_follows_the_window_key(cache: Path) -> None:
    add_model(cache, "Org/Cached", 600_000, WITH_CACHE)
    app = Host("Org/Cached", Config(context_window=8192))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "KV cache 67 MB for 8,192 tokens" in flowing(pilot))
        assert "600 k · window 32,768" in flowing(pilot)
        await pilot.press("f5")
        await until(pilot, lambda: "KV cache 134 MB for 16,384 tokens" in flowing(pilot))
        assert "4,096 tokens more cost 34 MB." in flowing(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.answers))
    assert app.answers == [ModelChoice("Org/Cached", context_window=16_384)]


async def test_the_rung_key_chooses_the_rung_that_is_loaded(cache: Path) -> None:
    app = Host("Org/Small-Instruct")
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "CPU 4-bit" in flowing(pilot))
        await pilot.press("f6", "f6")
        await until(pilot, lambda: "Enter loads it in CPU 8-bit" in flowing(pilot))
        assert next(line for line in text(pilot) if "CPU 8-bit  " in line).strip()[0] == "▌"
        await pilot.press("f5", "enter")
        await until(pilot, lambda: bool(app.answers))
    assert app.answers == [ModelChoice("Org/Small-Instruct", Precision.INT8, "cpu", 4096)]


async def test_the_unload_key_is_there_for_a_loaded_model_alone(cache: Path) -> None:
    app = Host()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "F7 unload" in flowing(pilot))
        await pilot.press("f7")
        await until(pilot, lambda: app.answers == [UNLOAD])


async def test_folders_of_the_config_are_searched_for_models(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "models" / "org" / "inner")
    save_model(tmp_path / "models" / "flat")
    save_model(tmp_path / "models" / ".hidden")
    (tmp_path / "models" / "empty").mkdir()
    config = Config(model_dirs=("~/models", "~/gone"))
    async with Host(config=config).run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: bool(row(pilot, "~/models/flat")))
        assert "folder" in row(pilot, "models/org/inner")
        assert not row(pilot, "hidden") and not row(pilot, "empty")
        assert "unusable" in row(pilot, "~/gone")
        await pilot.press(*"gone")
        await until(pilot, lambda: "There is no folder" in flowing(pilot))


async def test_a_typed_folder_is_looked_into(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "mine", 60_000_000)
    app = Host()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        app.screen.query_one(Input).value = "~/mine"
        await until(pilot, lambda: "120 MB" in row(pilot, "~/mine"))
        await until(pilot, lambda: "60 M" in flowing(pilot))
        app.screen.query_one(Input).value = "~/none"
        await until(pilot, lambda: f"There is no folder {tmp_path}/none." in flowing(pilot))


@pytest.mark.parametrize("width", [76, 80, 100])
async def test_what_a_rung_needs_stands_apart_from_what_is_said_of_it(
    cache: Path, width: int
) -> None:
    add_model(cache, "Org/Half", 423_000_000)  # "846 MB of 23.1 GB" is as long as it gets
    async with Host("Org/Half").run_test(size=(width, 30)) as pilot:
        await until(pilot, lambda: "CPU 4-bit" in flowing(pilot))
        for line in text(pilot):
            assert not line.rstrip().endswith("needed") or "free  not needed" in line


async def test_enter_chooses_the_highlighted_model(cache: Path) -> None:
    app = Host("Org/Small-Instruct")
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press("down", "up", "enter")
        await until(pilot, lambda: app.chosen == ["Org/Small-Instruct"])


async def test_what_does_not_fit_does_not_cost_the_model_that_is_loaded(cache: Path) -> None:
    app = Host("Org/Small-Instruct")
    async with app.run_test() as pilot:
        await until(pilot, lambda: "does not fit" in row(pilot, "Org/Vast-Instruct"))
        await pilot.press("down", "enter")
        await until(pilot, lambda: any("stays" in note.message for note in app._notifications))
        assert not app.chosen
        await pilot.press("enter")  # the estimate may be wrong
        await until(pilot, lambda: app.chosen == ["Org/Vast-Instruct"])


async def test_typing_filters_and_the_best_match_is_chosen(cache: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press(*"small")
        await until(pilot, lambda: not row(pilot, "Vast"))
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen == ["Org/Small-Instruct"])


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
        if kind == "hub":  # which cannot be asked here; Enter tries it nevertheless
            await until(pilot, lambda: "HF_HUB_OFFLINE is set" in flowing(pilot))
            assert app.chosen == []
            await pilot.press("enter")
        await until(pilot, lambda: app.chosen == [typed])


async def test_the_hub_is_asked_before_anything_is_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(cache / "elsewhere", 4_000_000_000, WITH_CACHE)
    checkpoint = read_checkpoint(cache / "elsewhere")
    answer = threading.Event()

    def look_up(name: str, cancel: threading.Event) -> HubModel:
        answer.wait()
        return HubModel(checkpoint, 8 * GB, 900 * GB)

    monkeypatch.setattr("tui_chat.engine.hub_lookup.look_up", look_up)
    app = Host()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: bool(row(pilot, "Org/Vast-Instruct")))
        await pilot.press(*"gpt2")
        await until(pilot, lambda: "Enter ask the hub" in flowing(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "Asking the hub" in flowing(pilot))
        await pilot.press("enter")
        answer.set()
        await until(pilot, lambda: "Enter downloads 8.0 GB (of 900.0 GB" in flowing(pilot))
        assert "8.0 GB" in row(pilot, "gpt2")
        assert "4.0 B · window 32,768" in flowing(pilot)
        await until(pilot, lambda: "KV cache" in flowing(pilot))
        assert app.chosen == []
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen == ["gpt2"])


async def test_a_name_can_be_asked_for_before_the_list_is_read(cache: Path) -> None:
    app = Host()
    async with app.run_test() as pilot:
        await pilot.press(*"gpt2", "enter")
        await until(pilot, lambda: "HF_HUB_OFFLINE is set" in flowing(pilot))
        await pilot.press("enter")
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


@pytest.mark.parametrize("width", [40, 44, 50, 80, 120, 200])
async def test_every_line_fits_at_any_width(cache: Path, width: int) -> None:
    async with Host("Org/Vast-Instruct").run_test(size=(width, 24)) as pilot:
        await until(pilot, lambda: "loaded" in row(pilot, "Org/Vast"))
        await until(pilot, lambda: sum("GB short" in line for line in text(pilot)) >= 3)
        assert all(len(line) <= width for line in text(pilot))
        assert "Esc back" in text(pilot)[-1]


async def test_a_narrow_screen_tells_what_each_rung_needs_too(cache: Path) -> None:
    async with Host("Org/Small-Instruct").run_test(size=(40, 24)) as pilot:
        await until(pilot, lambda: re.search(r"\d/\d+\.\d GB ", "\n".join(text(pilot))) is not None)
        assert all(len(line) <= 40 for line in text(pilot))


def test_the_best_rung_is_the_first_that_fits() -> None:
    rungs = (
        RungFit("4-bit", 5, 9, obstacle="No."),
        RungFit("8-bit", 9, 10, cache_bytes=2),
        RungFit("CPU", 9, 20),
    )
    assert ModelRow("m", "cached", rungs=rungs).best == rungs[2]
    assert ModelRow("m", "cached", rungs=rungs[:2]).best is None
