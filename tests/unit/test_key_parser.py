"""What a terminal sends for keys, as the app gets it."""

import time

import pytest
from textual.events import Key

from tui_chat.ui.driver import KeyParser


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("\x1bx", ["escape", "x"]),
        ("\x1bX", ["escape", "X"]),
        ("\x1b/", ["escape", "slash"]),
        ("\x1bé", ["escape", "é"]),
        ("\x1b\x03", ["escape", "ctrl+c"]),
        ("\x1bab", ["escape", "a", "b"]),
        ("\x1bx\x1b/\x1b\x1bé", ["escape", "x", "escape", "slash", "escape", "escape", "é"]),
        ("\x1by", ["alt+y"]),
        ("\x1b\r", ["alt+enter"]),
        ("\x1b[A", ["up"]),
        ("\x1b[1;3A", ["alt+up"]),
        ("\x1b", ["escape"]),
        ("\x1b[", ["escape", "left_square_bracket"]),
        ("a\x1bO", ["a", "escape", "O"]),
        ("\x1b\x1b[", ["escape", "escape", "left_square_bracket"]),
    ],
)
def test_a_sign_behind_esc_is_alt_only_where_there_is_such_a_key(
    sent: str, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = KeyParser(lambda key: key in ("alt+y", "alt+enter"))
    found = list(parser.feed(sent))
    now = time.perf_counter()
    monkeypatch.setattr("textual._parser.get_time", lambda: now + 10)
    found += parser.tick()
    assert [event.key for event in found if isinstance(event, Key)] == keys


@pytest.mark.parametrize("sent", ["\x1b[9;9q" + "1" * 40, "\x1b[9;9q", "\x1b[9", "\x1b]9;"])
def test_a_sequence_that_nobody_knows_is_no_esc(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = KeyParser(lambda _: False)
    found = [*parser.feed(sent)]
    now = time.perf_counter()
    monkeypatch.setattr("textual._parser.get_time", lambda: now + 10)
    found += parser.tick()
    assert "escape" not in [event.key for event in found if isinstance(event, Key)]
