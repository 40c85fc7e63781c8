import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tui_chat import files
from tui_chat.config import Options
from tui_chat.presets import (
    PresetError,
    all_presets,
    effective_config,
    new_chat,
    preset_names,
    presets_dir,
    read_preset,
    save_preset,
)
from tui_chat.types import NO_SETTINGS, ChatSettings, Mode, Preset

REVIEWER = '''\
description = "Reviews a patch"
system_prompt = """
You review patches.
Be brief."""
mode = "accuracy"

[modes.accuracy]
temperature = 0.3
stop_strings = ["END"]
'''
READ = Preset(
    name="reviewer",
    description="Reviews a patch",
    system_prompt="You review patches.\nBe brief.",
    settings=ChatSettings(
        preset="reviewer",
        mode=Mode.ACCURACY,
        accuracy={"temperature": 0.3, "stop_strings": ("END",)},
    ),
)


@pytest.fixture
def folder() -> Path:
    files.make_private_dir(presets_dir())
    return presets_dir()


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_folder_there_are_no_presets() -> None:
    assert (preset_names(), all_presets()) == ([], ([], ()))


def test_a_preset_is_read_with_all_that_it_says(folder: Path) -> None:
    put(folder, "reviewer", REVIEWER)
    assert read_preset("reviewer") == READ


def test_an_empty_file_is_a_preset_that_changes_nothing(folder: Path) -> None:
    put(folder, "plain", "")
    assert read_preset("plain") == Preset("plain", settings=ChatSettings(preset="plain"))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("system_prompt = \n", "line 1", "not valid TOML"),
        ("x = " + "[" * 5000, "", "nested"),
        ("mode = 'fast'", " on line 1", 'mode must be "speed" or "accuracy"'),
        ("\nsystem_prompt = 3", " on line 2", "system_prompt must be a text"),
        ("[modes.speed]\ntemperature = 9", " on line 2", "modes.speed.temperature must be"),
        ("[modes.speed]\ntemprature = 1", " on line 2", "modes.speed.temprature is not a setting"),
        ("[modes.fast]\n", " on line 1", "modes.fast must be the table"),
        ("modes = 3", " on line 1", "modes must be a table"),
        ('model = "guide"', " on line 1", "model is not a setting"),
    ],
)
def test_a_broken_file_is_named_in_one_sentence_left_out_and_not_touched(
    folder: Path, text: str, where: str, what: str
) -> None:
    put(folder, "reviewer", REVIEWER)
    path = put(folder, "broken", text)
    found, problems = all_presets()
    assert [preset.name for preset in found] == ["reviewer"]
    (sentence,) = problems
    assert sentence.startswith("Preset broken.toml") and where in sentence and what in sentence
    assert sentence.endswith("left out.") and "\n" not in sentence
    assert path.read_text(encoding="utf-8") == text


def test_a_file_of_bytes_and_one_that_cannot_be_read_are_named(folder: Path) -> None:
    (folder / "bytes.toml").write_bytes(b"a = 1\n\xff\xfe")
    os.mkfifo(folder / "pipe.toml")
    (folder / "folder.toml").mkdir()
    (folder / "gone.toml").symlink_to(folder / "nowhere")
    _, problems = all_presets()
    assert problems == ("Preset bytes.toml is not UTF-8 text (at line 2); it is left out.",)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")))
def test_whatever_stands_in_a_file_ends_no_program(folder: Path, data: bytes) -> None:
    path = folder / "any.toml"
    path.write_bytes(data)
    found, problems = all_presets()
    assert len(found) + len(problems) == 1
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "../a", ".a", "a.", "save", "none", "a\nb", "\x1b"]
)
def test_a_name_that_is_no_file_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(PresetError, match="cannot be the name"):
        read_preset(name)
    with pytest.raises(PresetError, match="cannot be the name"):
        save_preset(Preset(name))
    assert list(folder.iterdir()) == []


def test_a_preset_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    put(folder, "reviewer", REVIEWER)
    with pytest.raises(PresetError, match=r'no preset "writer"; there are reviewer\.'):
        read_preset("writer")


def test_a_saved_preset_is_read_back_and_the_file_before_is_kept(folder: Path) -> None:
    path = put(folder, "reviewer", "# mine\n")
    assert save_preset(READ) == folder / "reviewer.toml.bak"
    assert read_preset("reviewer") == READ
    assert (folder / "reviewer.toml.bak").read_text(encoding="utf-8") == "# mine\n"
    assert path.stat().st_mode & 0o077 == 0
    assert preset_names() == ["reviewer"]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("a\rb\nc\u2028d\r\ne")
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_system_prompt_survives_the_file(folder: Path, text: str) -> None:
    save_preset(replace(READ, system_prompt=text, description=text))
    assert read_preset("reviewer").system_prompt == text


def test_what_the_disk_refuses_is_one_sentence(folder: Path) -> None:
    with pytest.raises(PresetError, match="cannot be written"):
        save_preset(replace(READ, system_prompt="\ud800"))
    assert preset_names() == []


def test_new_chats_begin_with_the_preset_of_the_config_file(folder: Path) -> None:
    put(folder, "reviewer", REVIEWER)
    files.config_path().write_text('preset = "reviewer"\nsystem_prompt = "Own."', encoding="utf-8")
    assert new_chat(effective_config(Options())) == (READ.system_prompt, READ.settings)
    assert new_chat(effective_config(Options(preset="none"))) == ("Own.", NO_SETTINGS)


def test_flags_win_over_the_preset(folder: Path) -> None:
    put(folder, "reviewer", REVIEWER.replace("temperature = 0.3", "seed = 1\ntemperature = 0.3"))
    options = Options(preset="reviewer", system="Flag.", mode=Mode.SPEED, seed=5)
    loaded = effective_config(options)
    prompt, own = new_chat(loaded)
    assert prompt == "Flag."
    assert own.mode is None and loaded.config.mode is Mode.SPEED
    assert dict(own.accuracy) == {"temperature": 0.3, "stop_strings": ("END",)}
    assert loaded.config.accuracy.seed == 5


def test_a_preset_without_a_text_leaves_the_system_prompt(folder: Path) -> None:
    put(folder, "warm", "[modes.speed]\ntemperature = 1.2")
    prompt, own = new_chat(effective_config(Options(preset="warm", system="Flag.")))
    assert (prompt, dict(own.speed)) == ("Flag.", {"temperature": 1.2})


def test_a_bad_preset_of_the_config_file_is_told_and_one_of_a_flag_is_an_error(
    folder: Path,
) -> None:
    files.config_path().write_text('preset = "gone"', encoding="utf-8")
    loaded = effective_config(Options())
    assert loaded.problems == (f'There is no preset "gone"; {folder} has none.',)
    assert new_chat(loaded) == ("", NO_SETTINGS)
    with pytest.raises(PresetError, match="gone"):
        effective_config(Options(preset="gone"))
