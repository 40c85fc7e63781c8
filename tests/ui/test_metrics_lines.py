"""The figures under a reply, from the widest line to the shortest."""

from datetime import UTC, datetime

from tui_chat.types import Message, ReplyMetrics, Role
from tui_chat.ui.message_view import metrics_lines


def lines(metrics: ReplyMetrics) -> list[str]:
    reply = Message("r", Role.ASSISTANT, "hi", datetime(2026, 1, 1, tzinfo=UTC), metrics=metrics)
    return [
        "".join(part if isinstance(part, str) else part[1] for part in line)
        for line in metrics_lines(reply)
    ]


def test_cache_that_started_over_is_told_where_there_is_room() -> None:
    note = "a recurrent state cannot be cut back"
    metrics = ReplyMetrics(200, 0, 20, 0.001, 0.5, 0.4, cache_note=note)

    told, plain = lines(metrics), lines(ReplyMetrics(200, 0, 20, 0.001, 0.5, 0.4))

    assert f"prefill 200 tok ({note}) 500 ms" in told[0]
    assert told[3:] == plain
    assert not any("cut back" in line for line in plain)
