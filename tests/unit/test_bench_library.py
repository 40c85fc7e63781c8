import pytest

from tui_chat.bench import library
from tui_chat.bench.harness import Setup


def test_the_rows_of_the_library_compare_few_chats_with_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "FEW", 2)
    monkeypatch.setattr(library, "MANY", 6)
    rows = list(library.measure(Setup(runs=1), lambda _: None))
    assert [row.row for row in rows] == [
        "list: a page of 50",
        "search: 50 hits",
        "tui-chat list --limit 50",
        "tui-chat search",
    ]
    assert all(row.before > 0 and row.after > 0 for row in rows)
