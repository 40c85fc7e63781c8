import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fake_server import FakeServer, json_page, reply, usage

from tui_chat import files
from tui_chat.cli import main
from tui_chat.config import Options, Resume
from tui_chat.engine.base import LoadError, PollSettings
from tui_chat.engine.echo import EchoEngine
from tui_chat.headless import Ask, run_ask
from tui_chat.presets import presets_dir
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import (
    EngineEvent,
    GenerationFinished,
    GenerationSettings,
    Message,
    ReplyMetrics,
    TextDelta,
)

TEXT = "Hello there,\nthis is `code` and ünïcode 🙂.\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "reply.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


def echo(script: Path, *arguments: str) -> int:
    return main(["--model", f"echo:{script}", "ask", *arguments])


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


class ScriptedEngine(EchoEngine):
    """Remembers what it is asked and ends as the test wants."""

    def __init__(self, script: Path, *events: EngineEvent) -> None:
        super().__init__(script)
        self.events = events
        self.prompts: list[str] = []
        self.settings: list[GenerationSettings] = []

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        self.prompts.append(messages[-1].content)
        self.settings.append(settings())
        yield from self.events


FAILED = GenerationFinished("error", ReplyMetrics(), error="The GPU is out of memory.")
STOPPED = GenerationFinished("stop", ReplyMetrics(completion_tokens=2), (1, 2, 3), (4, 5))


def run(engine: ScriptedEngine, ask: Ask) -> int:
    return run_ask(ask, Options(), lambda *_: engine)


def test_the_reply_goes_to_standard_output_and_nothing_else(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo(script, "hi") == 0
    assert capsys.readouterr() == (TEXT, "")


def test_one_json_object_carries_the_text_and_all_figures(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo(script, "hi", "--json", "--mode", "accuracy", "--seed", "5") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["text"] == TEXT.strip()
    assert data["finish_reason"] == "stop"
    assert data["model"] == "echo:reply.md"
    assert (data["mode"], data["device"], data["precision"]) == ("accuracy", "echo", "cpu")
    assert data["seed"] == 5
    assert data["completion_tokens"] == 8
    assert data["total_seconds"] == pytest.approx(
        data["tokenize_seconds"] + data["prefill_seconds"] + data["decode_seconds"]
    )
    for name in (
        "prompt_tokens",
        "cached_tokens",
        "generate_seconds",
        "tokens_per_second",
        "prompt_tokens_per_second",
        "peak_memory_bytes",
    ):
        assert data[name] >= 0
    assert "error" not in data and "prompt_ids" not in data


def test_turns_are_one_conversation_with_one_json_object_a_line(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = tmp_path / "turns.txt"
    turns.write_text("one\n\n  \ntwo\r\nthree", encoding="utf-8")
    assert echo(script, "--turns", str(turns), "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(objects) == 3
    prompt_tokens = [data["prompt_tokens"] for data in objects]
    assert prompt_tokens == sorted(set(prompt_tokens))


def test_turns_as_text_are_separated_by_a_blank_line(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = tmp_path / "turns.txt"
    turns.write_text("one\ntwo\n", encoding="utf-8")
    assert echo(script, "--turns", str(turns)) == 0
    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}"


def test_ids_are_dumped_on_request(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    assert run(engine, Ask("hi", as_json=True, dump_ids=True)) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["prompt_ids"], data["new_ids"]) == ([1, 2, 3], [4, 5])


def test_greedy_turns_sampling_and_penalties_off(script: Path) -> None:
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    assert run(engine, Ask("hi", greedy=True)) == 0
    settings = engine.settings[0]
    assert settings.do_sample is False
    assert (settings.repetition_penalty, settings.no_repeat_ngram_size) == (1.0, 0)


def test_the_json_of_a_cut_reply_can_keep_an_unfinished_sentence_apart(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("trim_incomplete = true\n", encoding="utf-8")
    script.write_text("One is done. Two is not done yet.", encoding="utf-8")
    arguments = ["--config", str(config), "--model", f"echo:{script}", "--max-new-tokens", "5"]
    assert main([*arguments, "ask", "hi", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["text"], data["cut_tail"]) == ("One is done.", " Two is ")


def test_piped_text_is_put_before_the_question_as_context(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    pipe_in(monkeypatch, "total 0 \xfc\n".encode())
    assert run(engine, Ask("What is this?")) == 0
    prompt = engine.prompts[0]
    assert prompt.endswith("\n\nWhat is this?")
    assert "<context>\ntotal 0 ü\n</context>" in prompt


def test_piped_text_alone_is_the_question(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    pipe_in(monkeypatch, b"Why?\n\xff\n")
    assert run(engine, Ask()) == 0
    assert engine.prompts == ["Why?\n\ufffd"]


def test_an_empty_pipe_adds_nothing(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    pipe_in(monkeypatch, b"\n")
    assert run(engine, Ask("Why?")) == 0
    assert engine.prompts == ["Why?"]


def test_nothing_to_ask_is_wrong_usage(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert echo(script) == 2
    assert "no question" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "\n\n"])
def test_a_turns_file_without_prompts_is_wrong_usage(
    script: Path, tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = tmp_path / "turns.txt"
    if content is not None:
        turns.write_text(content, encoding="utf-8")
    assert echo(script, "--turns", str(turns)) == 2
    assert str(turns) in capsys.readouterr().err


def test_a_failed_reply_gives_exit_code_1_and_one_sentence(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ScriptedEngine(script, TextDelta("half"), FAILED), Ask("hi")) == 1
    assert capsys.readouterr() == ("half\n", "tui-chat: The GPU is out of memory.\n")


def test_a_failed_reply_is_an_error_in_json_too(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ScriptedEngine(script, TextDelta("half"), FAILED)
    assert run(engine, Ask("hi", as_json=True)) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["error"], data["text"]) == ("The GPU is out of memory.", "half")


def test_a_model_that_cannot_be_loaded_gives_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo(tmp_path / "missing", "hi", "--json") == 1
    out, err = capsys.readouterr()
    assert "missing" in json.loads(out)["error"]
    assert err.startswith("tui-chat: ") and err.count("\n") == 1


def test_a_load_error_is_made_safe_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> EchoEngine:
        raise LoadError("Bad \x1b[2Jname.")

    assert run_ask(Ask("hi"), Options(), refuse) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_what_a_model_writes_passes_unchanged_to_a_pipe(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ScriptedEngine(script, TextDelta("a\x1b[31mb\r\nc"), STOPPED)
    assert run(engine, Ask("hi")) == 0
    assert capsys.readouterr().out == "a\x1b[31mb\r\nc\n"


def test_what_a_model_writes_is_made_safe_for_a_terminal(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    engine = ScriptedEngine(script, TextDelta("a\x1b[31mb"), STOPPED)
    assert run(engine, Ask("hi")) == 0
    assert terminal.getvalue() == "a␛[31mb\n"


def test_a_conversation_is_stored_only_on_request(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert echo(script, "hi", "--data-dir", str(folder)) == 0
    assert echo(script, "hi") == 0
    assert not folder.exists() and not files.data_dir().exists()
    assert echo(script, "keep", "this", "--save", "--data-dir", str(folder)) == 0
    (summary,) = ConversationStore(folder).summaries()
    assert (summary.title, summary.message_count) == ("keep this", 2)


def test_ask_goes_on_with_the_last_chat_or_the_one_that_is_named(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo(script, "first question", "--save") == 0
    assert echo(script, "other question", "--save") == 0
    assert echo(script, "--continue", "and then?") == 0
    assert echo(script, "--resume", "first", "and here?", "--json") == 0
    store = ConversationStore(files.data_dir())
    prompts = {
        summary.title: [m.content for m in store.read(summary.id).conversation.messages[::2]]
        for summary in store.summaries()
    }
    assert prompts == {
        "first question": ["first question", "and here?"],
        "other question": ["other question", "and then?"],
    }
    reply = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert reply["prompt_tokens"] > 20  # what was said before is sent too


def test_a_chat_that_cannot_be_continued_is_one_sentence_before_a_model_is_loaded(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> EchoEngine:
        raise AssertionError("a model is loaded")

    resume = Options(resume=Resume(None))
    assert run_ask(Ask("q"), resume, never) == 1
    assert capsys.readouterr() == ("", "tui-chat: There is no chat to continue yet.\n")
    assert echo(script, "q", "--save") == 0
    (summary,) = ConversationStore(files.data_dir()).summaries()
    log = ConversationStore(files.data_dir()).open(summary.id)  # as another program has it
    capsys.readouterr()
    assert run_ask(Ask("q", as_json=True), Options(resume=Resume(summary.id)), never) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == err.removeprefix("tui-chat: ").rstrip()
    assert "open in another tui-chat" in err
    log.close()
    assert run_ask(Ask("q"), Options(resume=Resume("zebra")), never) == 1
    assert 'No chat holds "zebra"' in capsys.readouterr().err


def test_a_preset_gives_system_prompt_mode_and_settings_and_is_stored(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.make_private_dir(presets_dir())
    (presets_dir() / "short.toml").write_text(
        'system_prompt = "Be short."\nmode = "accuracy"\n'
        "[modes.accuracy]\nseed = 9\nmax_new_tokens = 2\n",
        encoding="utf-8",
    )
    store = ("--save", "--data-dir", str(tmp_path))
    assert echo(script, "hi", "--json", "--preset", "short", *store) == 0
    reply = json.loads(capsys.readouterr().out)
    assert (reply["mode"], reply["seed"], reply["completion_tokens"]) == ("accuracy", 9, 2)
    kept = ConversationStore(tmp_path)
    conversation = kept.read(kept.summaries()[0].id).conversation
    assert (conversation.system_prompt, conversation.settings.preset) == ("Be short.", "short")
    assert dict(conversation.settings.accuracy) == {"seed": 9, "max_new_tokens": 2}


def test_greedy_wins_over_the_settings_of_a_preset(script: Path) -> None:
    files.make_private_dir(presets_dir())
    (presets_dir() / "warm.toml").write_text(
        "[modes.speed]\ntemperature = 1.5\nrepetition_penalty = 1.3\n", encoding="utf-8"
    )
    engine = ScriptedEngine(script, TextDelta("ok"), STOPPED)
    assert run_ask(Ask("hi", greedy=True), Options(preset="warm"), lambda *_: engine) == 0
    assert (engine.settings[0].do_sample, engine.settings[0].repetition_penalty) == (False, 1.0)


@pytest.mark.parametrize("flag", [("--context", "64"), ("--context-budget", "64")])
def test_a_question_that_is_too_long_is_refused_with_the_numbers(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: tuple[str, str]
) -> None:
    store = ("--save", "--data-dir", str(tmp_path / "data"))
    assert echo(script, "word " * 100, *flag, *store) == 1
    out, err = capsys.readouterr()
    assert out == "" and "needs about 107 tokens" in err and err.count("\n") == 1
    assert echo(script, "word " * 100, *flag, "--json") == 1
    assert "needs about 107 tokens" in json.loads(capsys.readouterr().out)["error"]
    assert ConversationStore(tmp_path / "data").summaries() == []


def test_problems_of_the_config_file_are_told_on_standard_error(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("colour = 1\n", encoding="utf-8")
    assert echo(script, "hi", "--config", str(config)) == 0
    out, err = capsys.readouterr()
    assert out == TEXT
    assert "line 1" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_reply_and_prints_what_there_is(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    script = tmp_path / "long.txt"
    script.write_text("word " * 100_000, encoding="utf-8")
    command = [sys.executable, "-m", "tui_chat", "--model", f"echo:{script}", "--echo-rate", "50"]
    with subprocess.Popen(
        [*command, "ask", "hi", "--save", "--max-new-tokens", "100000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.read(4)
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == code
    assert first + rest == b"word " * ((len(rest) + 4) // 5 - 1) + b"word\n"
    (summary,) = ConversationStore(files.data_dir()).summaries()
    log = ConversationStore(files.data_dir()).open(summary.id)
    assert log.conversation.messages[-1].status == "interrupted"
    log.close()


def test_a_reader_that_goes_away_ends_the_program_quietly(tmp_path: Path) -> None:
    script = tmp_path / "long.txt"
    script.write_text("word\n" * 100_000, encoding="utf-8")
    command = [sys.executable, "-m", "tui_chat", "--model", f"echo:{script}"]
    with subprocess.Popen(
        [*command, "--echo-rate", "1000", "ask", "hi", "--max-new-tokens", "100000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_sentence(script: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tui_chat", "--model", f"echo:{script}", "ask", "hi"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_it_works_with_every_standard_stream_closed(script: Path) -> None:
    command = f"exec '{sys.executable}' -m tui_chat --model 'echo:{script}' ask hi <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


# On a server --------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as running:
        yield running


def test_a_server_answers_on_the_command_line(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [reply("It is ", "blue.", counts=usage(9, 4))]
    assert main(["--server", server.address, "ask", "--json", "why"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["model"], found["precision"]) == ("It is blue.", "tiny", None)
    assert found["device"] == f"server:{server.address.removeprefix('http://')}"
    assert (found["prompt_tokens"], found["completion_tokens"], found["approximate"]) == (
        9,
        4,
        False,
    )


def test_what_a_server_refuses_is_told_beside_the_answer(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"detail": "Unexpected fields in the request: {'repetition_penalty'}"}
    server.answers = [json_page(422, said), reply("Blue.")]
    assert main(["--server", server.address, "--mode", "accuracy", "ask", "why"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "Blue.\n"
    assert "The server refuses repetition_penalty" in printed.err


def test_a_server_that_fails_is_one_sentence_and_exit_code_1(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [json_page(500, {"error": "out of memory"})]
    assert main(["--server", server.address, "ask", "why"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "failed (500)" in printed.err and printed.err.count("\n") == 1
