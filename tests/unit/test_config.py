from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tui_chat import files
from tui_chat.config import (
    Config,
    ConfigError,
    Options,
    load_config,
    model_spec,
    parse_config,
    save_setting,
    to_toml,
    with_options,
)
from tui_chat.types import GenerationSettings, Mode, Precision


@pytest.fixture
def path() -> Path:
    files.make_private_dir(files.config_dir())
    return files.config_path()


def test_a_missing_file_means_defaults_without_a_problem(path: Path) -> None:
    loaded = load_config()
    assert (loaded.config, loaded.path, loaded.problems) == (Config(), path, ())
    assert not path.exists()


def test_every_setting_is_read_from_the_file(path: Path) -> None:
    path.write_text(
        """
model = "Qwen/Qwen3-0.6B"
precision = "4-bit"
device = "cuda:1"
context_window = 8192
context_budget = 4096
reserved_tokens = 256
trim_incomplete = true
mode = "accuracy"
system_prompt = '''Be
brief.'''
preset = "reviewer"
theme = "foreshore"
mouse = false

[modes.speed]
temperature = 0.7
top_k = 20
stop_strings = ["END"]

[modes.accuracy]
do_sample = false

[keymap]
new = "f9, ctrl+n"
""",
        encoding="utf-8",
    )
    loaded = load_config()
    assert loaded.problems == ()
    config = loaded.config
    assert (config.model, config.precision, config.device) == (
        "Qwen/Qwen3-0.6B",
        Precision.INT4,
        "cuda:1",
    )
    assert (config.context_window, config.reserved_tokens, config.mode) == (
        8192,
        256,
        Mode.ACCURACY,
    )
    assert config.trim_incomplete
    assert (config.context_budget, config.preset) == (4096, "reviewer")
    assert (config.system_prompt, config.theme, config.mouse) == ("Be\nbrief.", "foreshore", False)
    assert (config.speed.temperature, config.speed.top_k, config.speed.stop_strings) == (
        0.7,
        20,
        ("END",),
    )
    assert config.speed.repetition_penalty == 1.0
    assert config.accuracy.do_sample is False
    assert config.accuracy.no_repeat_ngram_size == 3
    assert dict(config.keymap) == {"new": "f9, ctrl+n"}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('mode = "fast"', "mode"),
        ("reserved_tokens = 0", "reserved_tokens"),
        ("reserved_tokens = true", "reserved_tokens"),
        ("trim_incomplete = 1", "trim_incomplete"),
        ('model = ""', "model"),
        ("mouse = 1", "mouse"),
        ('ssh = "yes"', "ssh"),
        ("ssh = 1", "ssh"),
        ("modes.speed.temperature = 9", "modes.speed.temperature"),
        ("modes.speed.top_p = nan", "modes.speed.top_p"),
        ('modes.accuracy.penalty_scope = "all"', "modes.accuracy.penalty_scope"),
        ('modes.speed.speculation = "on"', "modes.speed.speculation"),
        ("modes.speed.thinking = 1", "modes.speed.thinking"),
        ("modes.fast.top_p = 1", "modes.fast"),
        ("modes = 3", "modes"),
        ("keymap.new = 3", "keymap.new"),
        ("colour = 3", "colour"),
        ("reserved_tokens = inf", "reserved_tokens"),
        ("context_window = 99999999999999999999999", "context_window"),
        ("system_prompt = 2020-01-01", "system_prompt"),
        ("modes.speed.temperature = inf", "modes.speed.temperature"),
        ("modes.speed.temperature = -nan", "modes.speed.temperature"),
        ("modes.speed.max_new_tokens = -1", "modes.speed.max_new_tokens"),
        ("modes.speed.stop_strings = [1]", "modes.speed.stop_strings"),
        ("[modes.speed.top_p]\nx = 1", "modes.speed.top_p"),
        ("model_dirs = [[]]", "model_dirs"),
        ("keymap = []", "keymap"),
        ('"a\\nb\\u001b" = 1', '"a\\nb\\u001b"'),
        ("servers = 1", "servers"),
        ("servers.x = 1", "servers"),
    ],
)
def test_a_wrong_entry_is_one_sentence_and_the_rest_counts(
    path: Path, line: str, name: str
) -> None:
    path.write_text(f'theme = "foreshore"\n{line}\n', encoding="utf-8")
    loaded = load_config()
    assert loaded.config == replace(Config(), theme="foreshore")
    (problem,) = loaded.problems
    assert name in problem and problem.endswith(".") and "\n" not in problem
    assert not loaded.damaged


def test_the_line_of_a_wrong_entry_in_a_table_is_named(path: Path) -> None:
    path.write_text("\n[modes.accuracy]\ntop_k = 5\ntop_p = 2\n", encoding="utf-8")
    assert "on line 4" in load_config().problems[0]


BROKEN = [
    *(b"mode = \n", b"\xff\xfe", b"a = [" * 3000, b"x = 1\nx = 2\n", b"\x00", b"[" * 9000),
    *(
        b"seed = " + b"9" * 5000,
        b"d = 2020-99-99",
        b"a.b = 1\na = 2",
        b"[a]\n[a]\n",
        b"x = {" * 999,
    ),
    *(b"\xef\xbb\xbf\xef\xbb\xbfmouse = true", b"\x1b]0;t\x07", b"#" * 17_000_000),
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_starts_on_defaults_and_is_never_written_over(
    path: Path, data: bytes
) -> None:
    path.write_bytes(data)
    loaded = load_config()
    assert loaded.config == Config()
    assert loaded.damaged
    (problem,) = loaded.problems
    assert problem.endswith("; defaults are used.") and "\n" not in problem and len(problem) < 200
    with pytest.raises(ConfigError):
        save_setting(loaded, "theme", "foreshore")
    assert path.read_bytes() == data


def test_the_line_of_a_syntax_error_is_named(path: Path) -> None:
    path.write_text('theme = "tidepool"\nmode = \n', encoding="utf-8")
    assert "line 2" in load_config().problems[0]


def test_a_folder_in_place_of_the_file_is_told(path: Path) -> None:
    path.mkdir()
    loaded = load_config()
    assert loaded.damaged and loaded.problems


def test_a_byte_order_mark_is_accepted(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbfmode = "accuracy"\n')
    assert load_config().config.mode is Mode.ACCURACY


def test_saving_a_setting_keeps_all_other_lines_and_comments(path: Path) -> None:
    path.write_text('# mine\ntheme = "tidepool"  # blue\n\n[keymap]\nnew = "f9"\n', "utf-8")
    save_setting(load_config(), "theme", "foreshore")
    text = path.read_text(encoding="utf-8")
    assert text == '# mine\ntheme = "foreshore"\n\n[keymap]\nnew = "f9"\n'


def test_saving_a_setting_that_was_not_there_adds_it(path: Path) -> None:
    save_setting(load_config(), "theme", "foreshore")
    assert load_config().config.theme == "foreshore"
    path.write_text('[keymap]\nnew = "f9"\n', encoding="utf-8")
    save_setting(load_config(), "mode", "accuracy")
    loaded = load_config()
    assert (loaded.config.mode, dict(loaded.config.keymap)) == (Mode.ACCURACY, {"new": "f9"})


def test_saving_over_a_text_of_several_lines_keeps_the_other_settings(path: Path) -> None:
    path.write_text("system_prompt = '''\nmode = 1\n'''\nmouse = false\n", encoding="utf-8")
    save_setting(load_config(), "system_prompt", "short")
    loaded = load_config()
    assert loaded.problems == ()
    assert (loaded.config.system_prompt, loaded.config.mouse) == ("short", False)


@pytest.mark.parametrize(
    "text",
    [
        '"theme" = "tidepool"\nmouse = false\n',
        "\ufeffmouse = false\n",
        'system_prompt = """\ntheme = \'x\'\n[y]\n"""\nmouse = false\n',
    ],
)
def test_saving_a_setting_works_for_any_way_to_write_the_file(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    before = load_config().config
    save_setting(load_config(), "theme", "foreshore")
    assert load_config().config == replace(before, theme="foreshore")


def test_a_file_that_broke_after_it_was_read_is_not_written_over(path: Path) -> None:
    path.write_text("mouse = false\n", encoding="utf-8")
    loaded = load_config()
    path.write_text("mouse = \n", encoding="utf-8")
    with pytest.raises(ConfigError):
        save_setting(loaded, "theme", "foreshore")
    assert path.read_text(encoding="utf-8") == "mouse = \n"


@given(st.text(max_size=200))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        config, problems = parse_config(text)
    except ValueError as error:
        assert str(error).startswith("config.toml")
    else:
        assert isinstance(config, Config)
        assert all(problem.endswith(".") for problem in problems)


SETTINGS = st.builds(
    GenerationSettings,
    max_new_tokens=st.integers(1, 1_000_000),
    do_sample=st.none() | st.booleans(),
    temperature=st.none() | st.floats(0.01, 5.0),
    top_k=st.none() | st.integers(0, 1000),
    repetition_penalty=st.floats(0.5, 3.0),
    no_repeat_ngram_size=st.integers(0, 64),
    penalty_scope=st.sampled_from(["reply", "context"]),
    speculation=st.booleans(),
    thinking=st.none() | st.booleans(),
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop_strings=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
)
CONFIGS = st.builds(
    Config,
    model=st.text(min_size=1).filter(str.strip),
    precision=st.none() | st.sampled_from(Precision),
    context_window=st.none() | st.integers(64, 10**6),
    mode=st.sampled_from(Mode),
    system_prompt=st.text(),
    mouse=st.booleans(),
    ssh=st.none() | st.booleans(),
    trim_incomplete=st.booleans(),
    speed=SETTINGS,
    accuracy=SETTINGS,
    keymap=st.dictionaries(st.text(), st.text(), max_size=3),
)


@given(CONFIGS)
@example(Config(system_prompt="one\r\ntwo\n"))
def test_settings_written_out_read_back_as_the_same(config: Config) -> None:
    again, problems = parse_config(to_toml(config))
    assert problems == ()
    assert replace(again, keymap={}) == replace(config, keymap={})
    assert dict(again.keymap) == dict(config.keymap)


def test_options_go_before_the_file_for_both_modes() -> None:
    config = with_options(Config(), Options(model="m", max_new_tokens=5, seed=6, system="s"))
    assert (config.model, config.system_prompt) == ("m", "s")
    for mode in Mode:
        settings = config.settings(mode)
        assert (settings.max_new_tokens, settings.seed) == (5, 6)
    assert config.accuracy.repetition_penalty == 1.1


def test_the_model_spec_expands_the_home_folder() -> None:
    spec = model_spec(Config(model="~/model", context_window=99), echo_rate=3)
    assert spec.model == str(Path("~/model").expanduser())
    assert (spec.context_window, spec.echo_rate) == (99, 3)
