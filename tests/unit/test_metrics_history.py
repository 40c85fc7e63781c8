from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.chat.metrics_history import (
    CONTEXT_TOKENS,
    DRAFTED_SHARE,
    PEAK_MEMORY_BYTES,
    PREFILL_SECONDS,
    REUSED_SHARE,
    TOKENS_PER_SECOND,
    Figure,
    MetricsHistory,
    as_text,
)
from tui_chat.types import Conversation, Message, Mode, Precision, ReplyMetrics, Role

NOW = datetime(2026, 3, 1, tzinfo=UTC)
USUAL = ReplyMetrics(
    prompt_tokens=400,
    cached_tokens=300,
    completion_tokens=101,
    tokenize_seconds=0.002,
    prefill_seconds=0.05,
    decode_seconds=2.0,
    precision=Precision.INT4,
    peak_memory_bytes=1_200_000_000,
    drafted_tokens=50,
)


def reply(metrics: ReplyMetrics | None = USUAL, mode: Mode | None = Mode.SPEED) -> Message:
    return Message("r", Role.ASSISTANT, "hi", NOW, "q", model="m", mode=mode, metrics=metrics)


def branch(*replies: Message) -> tuple[Message, ...]:
    """The replies, each behind its prompt, from the root on."""
    messages: list[Message] = []
    for number, answer in enumerate(replies):
        before = messages[-1].id if messages else None
        messages.append(Message(f"q{number}", Role.USER, "why?", NOW, before))
        messages.append(replace(answer, id=f"r{number}", parent_id=f"q{number}"))
    return tuple(messages)


def history(*replies: Message) -> MetricsHistory:
    return MetricsHistory.of(Conversation("c", NOW, messages=branch(*replies)))


def test_series_has_one_value_for_each_measured_reply_in_their_order() -> None:
    slow = replace(USUAL, decode_seconds=4.0, cached_tokens=0)
    found = history(reply(), reply(None), reply(ReplyMetrics()), reply(slow))

    assert len(found.replies) == 2
    assert found.series(TOKENS_PER_SECOND) == (50.0, 25.0)
    assert found.series(REUSED_SHARE) == (0.75, 0.0)
    assert found.series(PREFILL_SECONDS) == (0.05, 0.05)
    assert found.series(CONTEXT_TOKENS) == (501, 501)
    assert found.series(PEAK_MEMORY_BYTES) == (1_200_000_000, 1_200_000_000)
    assert found.last(DRAFTED_SHARE) == Figure(50 / 101)


def test_rate_of_a_reply_of_few_tokens_is_not_told() -> None:
    found = history(reply(replace(USUAL, completion_tokens=7)))

    assert found.series(TOKENS_PER_SECOND) == (None,)
    assert found.last(CONTEXT_TOKENS) == Figure(407)


def test_what_rests_on_counts_is_marked_where_a_server_did_not_tell_them() -> None:
    found = history(reply(replace(USUAL, approximate=True, precision=None)))

    for quantity in (TOKENS_PER_SECOND, REUSED_SHARE, CONTEXT_TOKENS, DRAFTED_SHARE):
        assert found.last(quantity).about == "≈"  # type: ignore[union-attr]
    assert found.last(PREFILL_SECONDS) == Figure(0.05)


def test_reuse_that_a_server_does_not_tell_is_not_taken_for_none() -> None:
    silent = replace(USUAL, precision=None, cached_tokens=0)

    assert history(reply(silent)).series(REUSED_SHARE) == (None,)
    assert history(reply(replace(silent, precision=Precision.CPU))).series(REUSED_SHARE) == (0.0,)


def test_empty_conversation_has_no_figures() -> None:
    found = history()

    assert found.last(TOKENS_PER_SECOND) is None
    assert [mode.median(TOKENS_PER_SECOND) for mode in found.by_mode()] == [None, None]
    assert not found.has_earlier


def test_history_says_when_the_beginning_of_the_branch_is_not_loaded() -> None:
    found = Conversation("c", NOW, messages=branch(reply()), has_earlier=True)

    assert MetricsHistory.of(found).has_earlier
    assert "Earlier replies are not loaded." in as_text(MetricsHistory.of(found))


def test_modes_are_compared_over_the_replies_that_are_wholly_in_one() -> None:
    both = replace(reply(mode=Mode.ACCURACY), modes=(Mode.SPEED, Mode.ACCURACY))
    fast = replace(USUAL, decode_seconds=1.0)
    found = history(reply(), both, reply(fast), reply(mode=None), reply(fast))

    speed, accuracy = found.by_mode()

    assert (speed.mode, len(speed.metrics)) == (Mode.SPEED, 3)
    assert speed.median(TOKENS_PER_SECOND) == Figure(100.0)
    assert (accuracy.mode, len(accuracy.metrics)) == (Mode.ACCURACY, 0)
    assert accuracy.median(TOKENS_PER_SECOND) is None


def test_modes_are_not_compared_across_models_or_precisions() -> None:
    other = replace(reply(mode=Mode.ACCURACY), model="a larger one")
    finer = reply(replace(USUAL, precision=Precision.FP16), Mode.ACCURACY)
    found = history(other, finer, reply())

    speed, accuracy = found.by_mode()

    assert (len(speed.metrics), len(accuracy.metrics)) == (1, 0)
    assert found.is_mixed
    assert not history(reply(), reply()).is_mixed


def test_median_is_marked_when_one_of_its_figures_is_an_estimate() -> None:
    found = history(reply(), reply(replace(USUAL, approximate=True)))

    assert found.by_mode()[0].median(TOKENS_PER_SECOND) == Figure(50.0, approximate=True)


@given(st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=9))
def test_median_is_that_of_the_series(seconds: list[float]) -> None:
    found = history(*(reply(replace(USUAL, decode_seconds=value)) for value in seconds))

    rates = [rate for rate in found.series(TOKENS_PER_SECOND) if rate is not None]
    told = found.by_mode()[0].median(TOKENS_PER_SECOND)
    assert told is not None
    assert told.value == pytest.approx(median(rates))


def test_figures_as_text_have_a_line_for_each_reply_and_the_medians() -> None:
    both = replace(reply(mode=Mode.ACCURACY), modes=(Mode.SPEED, Mode.ACCURACY))
    server = replace(USUAL, precision=None, approximate=True, tokenize_seconds=0.0)

    lines = as_text(history(reply(), both, reply(server, Mode.ACCURACY))).splitlines()

    words = [" ".join(line.split()) for line in lines]
    assert words[0].startswith("reply mode precision tok/s tokens prompt reused")
    assert words[1] == "1 speed 4-bit 50.0 101 400 300 0.0020 0.0500 2.000 50 1200 m"
    assert words[2].startswith("2 speed+accuracy 4-bit")
    assert words[3] == "3 accuracy — ≈50.0 ≈101 ≈400 300 — 0.0500 2.000 50 1200 m"
    assert words[-1] == "accuracy: 1 reply, median ≈50.0 tok/s, prefill 0.0500 s"


def test_name_of_a_model_cannot_break_the_lines_of_the_text() -> None:
    text = as_text(history(replace(reply(), model="two\nlines")))

    assert "two lines" in text
