"""The row above the text that names the files of the draft."""

from collections.abc import Sequence

from tui_chat.ui.draft import DraftFile, Tokens
from tui_chat.ui.ink import Line, OneLine, Part, file_size

_LONG_NAME = 24
"""Characters of a name from which on that of a refused file is cut."""


class AttachmentRow(OneLine):
    """Name, size and tokens of each file that goes along with the next prompt.

    A file that is refused comes first, with the reason: it is the last thing to go where there is
    no room.
    """

    def __init__(self) -> None:
        super().__init__(id="attachments")
        self.display = False

    def show_files(self, files: Sequence[DraftFile]) -> None:
        """Show the files; the row is there only when there are some."""
        self.display = bool(files)
        refused = [file for file in files if file.fault]
        taken = [file for file in files if not file.fault]
        if not refused:
            self.show([_names(taken, sized=True), _names(taken), _total(taken)])
            return
        why, count = _reasons(refused), _count(refused, "× ", " refused", "warn")
        if not taken:
            self.show([why, [count]])
            return
        self.show(
            [
                [*why, "   ", *_names(taken, sized=True)],
                [*why, "   ", *_names(taken)],
                [*why, "   ", *_total(taken)],
                [*why, "   ", _count(taken)],
                [count, "   ", *_total(taken)],
                [count, "   ", _count(taken)],
            ]
        )


def _names(files: Sequence[DraftFile], *, sized: bool = False) -> Line:
    parts: list[Part] = []
    for file in files:
        parts += ["   "] * bool(parts)
        parts.append(("ref", f"+ {file.name}"))
        if sized:
            tokens = f" · {file.tokens}" if file.tokens is not None else ""
            parts.append(("m", f" {file_size(file.size)}{tokens}"))
    return parts


def _reasons(files: Sequence[DraftFile]) -> Line:
    parts: list[Part] = []
    for file in files:
        name = file.name
        if len(name) > _LONG_NAME:
            name = f"{name[: _LONG_NAME - 9]}…{name[-8:]}"
        parts += ["   "] * bool(parts)
        parts += [("warn", f"× {name}: {file.fault}")]
    return parts


def _count(
    files: Sequence[DraftFile], before: str = "+ ", behind: str = "", word: str = "ref"
) -> Part:
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return word, f"{before}{count}{behind}"


def _total(files: Sequence[DraftFile]) -> Line:
    """How many files, and the tokens of them all."""
    counts = [file.tokens for file in files if file.tokens is not None]
    total = Tokens(sum(count.number for count in counts), all(count.exact for count in counts))
    return [_count(files), ("m", f" {total}")]
