import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.engine.base import Engine, LoadError
from tui_chat.engine.echo import EchoEngine, split_tokens
from tui_chat.types import (
    GenerationFinished,
    GenerationSettings,
    Message,
    Precision,
    PrefillProgress,
    Role,
    TextDelta,
)

TEXT = "# Title\n\nSome  words, 世界 🙂.\n```python\nprint('x')\n```\n"
PROMPT = [Message("m1", Role.USER, "say it", datetime(2026, 1, 1, tzinfo=UTC))]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "reply.md"
    path.write_text(TEXT, "utf-8", newline="")
    return path


def run(
    engine: Engine, limit: int = 1000, cancel: threading.Event | None = None
) -> tuple[list[TextDelta], GenerationFinished]:
    events = list(
        engine.stream(
            PROMPT,
            lambda: GenerationSettings(max_new_tokens=limit),
            cancel or threading.Event(),
        )
    )
    assert isinstance(events[0], PrefillProgress)
    assert isinstance(events[-1], GenerationFinished)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert len(deltas) == len(events) - 2
    return deltas, events[-1]


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(split_tokens(text)) == text


def test_reply_is_the_text_of_the_file(script: Path) -> None:
    deltas, finished = run(EchoEngine(script))
    assert "".join(delta.text for delta in deltas) == TEXT
    assert finished.finish_reason == "stop"
    assert finished.metrics.completion_tokens == len(deltas)
    assert [delta.completion_tokens for delta in deltas] == list(range(1, len(deltas) + 1))
    assert finished.metrics.precision is Precision.CPU


def test_line_ends_of_the_file_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\r\ntwo\r\n")
    deltas, _ = run(EchoEngine(tmp_path / "a"))
    assert "".join(delta.text for delta in deltas) == "one\r\ntwo\r\n"


def test_reply_stops_at_the_token_limit(script: Path) -> None:
    deltas, finished = run(EchoEngine(script), limit=3)
    assert len(deltas) == 3
    assert finished.finish_reason == "length"


def test_rate_is_not_exceeded(script: Path) -> None:
    _, finished = run(EchoEngine(script, rate=100))
    assert 0 < finished.metrics.tokens_per_second <= 101


def test_cancel_ends_a_slow_reply_and_keeps_what_came(script: Path) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.05, cancel.set)
    timer.start()
    deltas, finished = run(EchoEngine(script, rate=0.01), cancel=cancel)
    timer.join()
    assert finished.finish_reason == "cancelled"
    assert len(deltas) == finished.metrics.completion_tokens == 1


def test_empty_file_is_an_empty_reply(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    deltas, finished = run(EchoEngine(tmp_path / "empty"))
    assert deltas == []
    assert finished.finish_reason == "stop"
    assert finished.metrics.tokens_per_second == 0.0


def test_counts_are_the_same_each_time_and_not_called_exact(script: Path) -> None:
    engine = EchoEngine(script)
    assert not engine.exact_counts
    assert engine.count_tokens(PROMPT) == engine.count_tokens(PROMPT) > 0
    assert engine.count_tokens(PROMPT * 2) - engine.count_tokens(PROMPT) == engine.count_message(
        PROMPT[0]
    )


def test_second_prompt_reuses_tokens_of_the_first(script: Path) -> None:
    engine = EchoEngine(script)
    assert run(engine)[1].metrics.cached_tokens == 0
    second = run(engine)[1].metrics
    assert 0 < second.cached_tokens < second.prompt_tokens


def test_engine_says_what_it_is(script: Path) -> None:
    engine: Engine = EchoEngine(script)
    assert (engine.name, engine.device, engine.dtype) == ("echo:reply.md", "echo", "")
    assert engine.rungs[-1].taken
    assert engine.memory() is None
    engine.close()


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"No such file: .*nothing\.md"):
        EchoEngine(tmp_path / "nothing.md")


def test_folder_or_binary_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        EchoEngine(tmp_path)
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(LoadError, match="is not UTF-8 text"):
        EchoEngine(tmp_path / "x")
