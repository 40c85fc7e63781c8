"""What a small pane shows of a message: its beginning, or the lines around what was searched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tui_chat.store.search import places
from tui_chat.ui.plain_markdown import plain_line

AROUND = 1
"""Lines that are shown before and behind a line with a hit."""
_MOST_CHARACTERS = 200_000
"""What a message has beyond is not looked at."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines of a message that look alike."""

    kind: Literal["text", "code", "gap"]
    text: str


def excerpt(
    text: str, words: Sequence[str], lines: int, longest: int, *, is_markdown: bool = True
) -> list[Piece]:
    """About `lines` lines of `text`: those around the folded `words`, else the first ones.

    Lines are cut to `longest` characters, around their first hit. What is left out is told as
    a gap, "… 14 lines …". The lines of fenced code are pieces of their own; all others lose
    their marks where the text is Markdown.
    """
    rows = list(_rows(text[:_MOST_CHARACTERS]))
    found = [_first_place(row, words) for row, _ in rows]
    hits = [at for at, place in enumerate(found) if place is not None]
    wanted: set[int] = set()
    for at in hits:
        around = range(max(0, at - AROUND), min(len(rows), at + AROUND + 1))
        if len(wanted.union(around)) > max(lines, 2 * AROUND + 1):
            break
        wanted.update(around)
    if not wanted:
        wanted.update(range(min(lines, len(rows))))
    pieces: list[Piece] = []
    left_out = 0
    for at, (row, is_code) in enumerate(rows):
        if at in wanted:
            _add_gap(pieces, left_out)
            left_out = 0
            shown = _cut(row, found[at], longest)
            if is_markdown and not is_code:
                shown = plain_line(shown, words)
            _add(pieces, "code" if is_code else "text", shown)
        elif row.strip():
            left_out += 1
    if len(text) > _MOST_CHARACTERS:
        pieces.append(Piece("gap", "…"))
    else:
        _add_gap(pieces, left_out)
    return pieces


def _rows(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of `text` without runs of blank ones, and whether each is fenced code."""
    fence = ""
    blank = True
    for line in text.split("\n"):
        line = line.rstrip()
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
            continue
        if line or not blank:
            yield line, bool(fence)
        blank = not line


def _first_place(row: str, words: Sequence[str]) -> tuple[int, int] | None:
    found = places(row, words) if words else []
    return found[0] if found else None


def _cut(row: str, place: tuple[int, int] | None, longest: int) -> str:
    if len(row) <= longest:
        return row
    start = 0 if place is None else max(0, min(place[0] - longest // 3, len(row) - longest))
    end = start + longest
    return "…" * (start > 0) + row[start:end].strip() + "…" * (end < len(row))


def _add(pieces: list[Piece], kind: Literal["text", "code"], row: str) -> None:
    if pieces and pieces[-1].kind == kind:
        pieces[-1] = Piece(kind, f"{pieces[-1].text}\n{row}")
    else:
        pieces.append(Piece(kind, row))


def _add_gap(pieces: list[Piece], lines: int) -> None:
    if lines:
        pieces.append(Piece("gap", f"… {lines:,} {'line' if lines == 1 else 'lines'} …"))
