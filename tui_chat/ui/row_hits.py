"""Where searched words stand in rows, also where a row was broken inside of one."""

from bisect import bisect_right
from collections.abc import Sequence

from tui_chat.store.search import places
from tui_chat.ui.wrapping import Line

Spans = list[tuple[int, int]]
"""Start and end of each hit in a row, in characters."""


def hits_in_rows(rows: Sequence[Line], words: Sequence[str]) -> dict[int, Spans]:
    """The folded `words` in `rows`, by the index of the row."""
    if not words:
        return {}
    parts: list[str] = []
    starts: list[int] = []
    """Where the text of each row begins in the joined text."""
    length = 0
    for row in rows:
        joint = row.joint if starts else ""
        own = row.text[row.indent :]
        parts += (joint, own)
        starts.append(length + len(joint))
        length = starts[-1] + len(own)
    found: dict[int, Spans] = {}
    for start, end in places("".join(parts), words):
        index = max(0, bisect_right(starts, start) - 1)
        while index < len(rows) and starts[index] < end:
            indent = rows[index].indent
            length = len(rows[index].text) - indent
            first = min(max(0, start - starts[index]), length)
            last = min(end - starts[index], length)
            if first < last:
                found.setdefault(index, []).append((indent + first, indent + last))
            index += 1
    return found
