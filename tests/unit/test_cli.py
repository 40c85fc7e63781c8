import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tui_chat import files
from tui_chat.cli import main
from tui_chat.config import Config, Options, Resume, load_config, with_options
from tui_chat.types import Mode, Precision
from tui_chat.ui.commands import ACTIONS
from tui_chat.ui.lifeguard import Lifeguard


def run(*arguments: str) -> int:
    """The exit code, also where the parser ends the program."""
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "reply.txt"
    path.write_text("one two three four\n", encoding="utf-8")
    return f"echo:{path}"


@pytest.fixture
def screen_options(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What the screen is started with, in a terminal."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    from tui_chat.ui import app

    started: list[Options] = []

    def run_app(options: Options, lifeguard: Lifeguard) -> int:
        started.append(options)
        return 7

    monkeypatch.setattr(app, "run_app", run_app)
    monkeypatch.setattr(Lifeguard, "start", lambda self: None)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "__stderr__", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    return started


def test_without_a_command_the_screen_starts_with_the_given_options(
    screen_options: list[Options], tmp_path: Path
) -> None:
    config = tmp_path / "other.toml"
    config.write_text("", encoding="utf-8")
    code = run(
        *("--model", "~/m", "--device", "cpu", "--precision", "8-bit", "--mode", "accuracy"),
        *("--max-new-tokens", "9", "--system", "Be brief.", "--seed", "3", "--context", "2048"),
        *("--preset", "none", "--context-budget", "1024", "--reserved-tokens", "100"),
        *("--config", str(config), "--data-dir", str(tmp_path), "--echo-rate", "2.5"),
        *("--no-mouse", "--no-ssh"),
    )
    assert code == 7
    assert screen_options == [
        Options(
            model="~/m",
            device="cpu",
            precision="8-bit",
            mode=Mode.ACCURACY,
            max_new_tokens=9,
            system="Be brief.",
            seed=3,
            context=2048,
            preset="none",
            context_budget=1024,
            reserved_tokens=100,
            config=config,
            data_dir=tmp_path,
            echo_rate=2.5,
            mouse=False,
            ssh=False,
        )
    ]


def test_options_that_are_not_given_leave_the_config_alone(screen_options: list[Options]) -> None:
    run()
    assert with_options(Config(), screen_options[0]) == Config()


@pytest.mark.parametrize("missing", ["stdin", "__stderr__"])
def test_the_screen_refuses_to_start_without_a_terminal(
    screen_options: list[Options],
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, missing, None)
    assert run() == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "terminal" in err
    assert (out, screen_options) == ("", [])


def test_the_screen_refuses_a_dumb_terminal(
    screen_options: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert run() == 2
    assert screen_options == []


def test_flags_work_before_and_after_the_command(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ("--model", script, "--mode", "accuracy", "--max-new-tokens", "2")
    assert run(*before, "ask", "q", "--json") == 0
    assert run("ask", *before, "q", "--json") == 0
    assert run(*before, "ask", "--mode", "speed", "q", "--json") == 0
    replies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [reply["mode"] for reply in replies] == ["accuracy", "accuracy", "speed"]
    assert {reply["completion_tokens"] for reply in replies} == {2}
    assert {reply["finish_reason"] for reply in replies} == {"length"}


@pytest.mark.parametrize(
    ("arguments", "resume"),
    [
        ((), None),
        (("--continue",), Resume(None)),
        (("--resume",), Resume("")),
        (("--resume", "2026"), Resume("2026")),
        (("--resume", "kv cache"), Resume("kv cache")),
    ],
)
def test_the_screen_is_told_which_chat_to_go_on_with(
    screen_options: list[Options], arguments: tuple[str, ...], resume: Resume | None
) -> None:
    assert run(*arguments) == 7
    assert screen_options[0].resume == resume


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "x"),
        ("--seed", "-1"),
        ("--context", "3"),
        ("--max-new-tokens", "0"),
        ("--max-new-tokens", "1.5"),
        ("--echo-rate", "-2"),
        ("--echo-rate", "nan"),
        ("--precision", "3-bit"),
        ("--mode", "fast"),
        ("--model", " "),
        ("--config", "/nowhere/config.toml"),
        ("--data-dir", "/dev/null"),
        ("--bogus",),
        ("bogus",),
        ("ask", "--bogus", "q"),
        ("ask", "--dump-ids", "q"),
        ("ask", "--turns", "file", "q"),
        ("--model", "x", "bench"),
        ("--preset", "gone"),
        ("ask", "--preset", "gone", "q"),
        ("ask", "--preset", "../gone", "q"),
        ("--continue", "--resume", "x"),
        ("--continue", "--system", "x"),
        ("ask", "--resume", "x", "--preset", "none", "q"),
        ("ask", "q", "--resume"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tui-chat: ") and err.count("\n") == 1


def test_version_names_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "tui-chat",
        "Python",
        "torch",
        "transformers",
        "textual",
    ]


def test_help_keys_lists_every_action_with_the_users_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[keymap]\nnew = "f9"\n', encoding="utf-8")
    assert run("--help-keys", "--config", str(config)) == 0
    out = capsys.readouterr().out
    assert all(action.help in out for action in ACTIONS)
    assert re.search(r"F9 +/new", out)


@pytest.mark.parametrize("arguments", [("--help",), ("ask", "--help")])
def test_help_names_every_shared_flag(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    for flag in ("model", "device", "precision", "mode", "max-new-tokens", "system", "seed"):
        assert f"--{flag}" in out
    for flag in (
        "context",
        "config",
        "data-dir",
        "echo-rate",
        "preset",
        "context-budget",
        "reserved-tokens",
    ):
        assert f"--{flag}" in out


def test_config_prints_paths_and_a_valid_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--mode", "accuracy", "--precision", "cpu", "--seed", "4") == 0
    out = capsys.readouterr().out
    for path in (files.config_path(), files.data_dir(), files.log_path()):
        assert str(path) in out
    data = tomllib.loads(out)
    assert (data["mode"], data["precision"]) == ("accuracy", "cpu")
    assert data["modes"]["speed"]["seed"] == data["modes"]["accuracy"]["seed"] == 4


def test_config_names_every_problem_and_leaves_the_file_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = 'mode = "fast"\n[keymap]\ndance = "f9"\n'
    files.make_private_dir(files.config_dir())
    files.config_path().write_text(text, encoding="utf-8")
    assert run("config") == 0
    out = capsys.readouterr().out
    assert "# problem: config.toml on line 1" in out
    assert '"dance"' in out
    assert files.config_path().read_text(encoding="utf-8") == text


def test_auto_on_the_command_line_beats_a_precision_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('precision = "8-bit"\n', encoding="utf-8")
    config = load_config(path).config
    assert config.precision is Precision.INT8
    assert with_options(config, Options(precision="auto")).precision is None
