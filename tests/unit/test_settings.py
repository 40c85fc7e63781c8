import json
import tomllib
from dataclasses import fields
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.settings import (
    GENERATION_CHECKS,
    from_plain,
    overlaid,
    shown,
    to_plain,
    typed,
    with_change,
)
from tui_chat.types import NO_SETTINGS, ChatSettings, GenerationSettings, Mode

BASE = GenerationSettings(temperature=1.0, top_k=20)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "max_new_tokens": st.integers(1, 1_000_000),
    "do_sample": st.booleans(),
    "temperature": st.floats(0.01, 5.0),
    "top_p": st.floats(0.01, 1.0),
    "top_k": st.integers(0, 1_000_000),
    "min_p": st.floats(0.0, 1.0),
    "repetition_penalty": st.floats(0.5, 3.0),
    "no_repeat_ngram_size": st.integers(0, 64),
    "penalty_scope": st.sampled_from(["reply", "context"]),
    "speculation": st.booleans(),
    "thinking": st.booleans(),
    "seed": st.integers(0, 2**63 - 1),
    "stop_strings": st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
}
TABLES = st.fixed_dictionaries({}, optional=VALUES)
CHATS = st.builds(
    ChatSettings,
    preset=st.text(max_size=5),
    mode=st.none() | st.sampled_from(Mode),
    speed=TABLES,
    accuracy=TABLES,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*GENERATION_CHECKS, "preset", "mode", "modes", "speed", "accuracy"]),
            inner,
            max_size=4,
        )
    ),
)


def test_every_field_of_the_generation_settings_has_its_check() -> None:
    names = {field.name for field in fields(GenerationSettings)}
    assert set(GENERATION_CHECKS) == names == set(VALUES)


@given(CHATS)
def test_what_a_chat_sets_comes_back_from_json(chat: ChatSettings) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(chat)))) == chat


@given(JSON)
def test_whatever_stands_in_a_file_gives_usable_settings(data: object) -> None:
    chat = from_plain(data)
    assert from_plain(to_plain(chat)) == chat
    for mode in Mode:
        overlaid(BASE, chat, mode)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -1, True, "1", None, [1]])
def test_a_number_that_is_none_is_refused_in_words(value: object) -> None:
    with pytest.raises(ValueError, match=r"a number from 0\.01 to 5"):
        GENERATION_CHECKS["temperature"](value)


@pytest.mark.parametrize(
    ("setting", "words", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", "1", 1.0),
        ("seed", "7", 7),
        ("thinking", "false", False),
        ("penalty_scope", "context", "context"),
        ("penalty_scope", '"reply"', "reply"),
        ("stop_strings", '["END", "STOP"]', ("END", "STOP")),
    ],
)
def test_a_typed_value_is_read_with_or_without_quotes(
    setting: str, words: str, value: object
) -> None:
    assert typed(setting, words) == value


@pytest.mark.parametrize(
    ("setting", "words", "must"),
    [
        ("temperature", "hot", "a number from 0.01 to 5"),
        ("top_k", "1.5", "a whole number"),
        ("speculation", "on", "true or false"),
        ("stop_strings", "END", "a list of texts"),
    ],
)
def test_a_typed_value_that_cannot_be_used_is_explained(
    setting: str, words: str, must: str
) -> None:
    with pytest.raises(ValueError, match=must):
        typed(setting, words)


@given(st.sampled_from(list(VALUES)), st.data())
def test_a_shown_value_can_be_typed_again(setting: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[setting])
    assert typed(setting, shown(value)) == value
    assert "\n" not in shown(value)


def test_a_change_holds_for_its_mode_until_it_is_taken_back() -> None:
    warm = with_change(NO_SETTINGS, Mode.SPEED, "temperature", 0.7)
    both = with_change(warm, Mode.ACCURACY, "seed", 3)
    assert overlaid(BASE, both, Mode.SPEED) == GenerationSettings(temperature=0.7, top_k=20)
    assert overlaid(BASE, both, Mode.ACCURACY).seed == 3
    back = with_change(both, Mode.SPEED, "temperature", None)
    assert overlaid(BASE, back, Mode.SPEED) is BASE
    assert ChatSettings() == NO_SETTINGS


@given(CHATS)
def test_the_plain_form_is_a_part_of_a_config_file(chat: ChatSettings) -> None:
    plain = to_plain(chat)
    assert tomllib.loads(tomli_w.dumps(plain)) == plain
