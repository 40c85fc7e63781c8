"""The row above the text that names the files of the draft."""

from collections.abc import Sequence

from tui_chat.ui.draft import DraftFile
from tui_chat.ui.ink import Line, OneLine, Part, file_size


class AttachmentRow(OneLine):
    """Name, size and tokens of each file that goes along with the next prompt."""

    def __init__(self) -> None:
        super().__init__(id="attachments")
        self.display = False

    def show_files(self, files: Sequence[DraftFile]) -> None:
        """Show the files; the row is there only when there are some."""
        self.display = bool(files)
        tokens = sum(file.tokens or 0 for file in files)
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        total: Line = (("ref", f"+ {count}"), ("m", f" {tokens:,} tok"))
        self.show([_line(files, whole=True), _line(files, whole=False), total])


def _line(files: Sequence[DraftFile], *, whole: bool) -> Line:
    parts: list[Part] = []
    for file in files:
        parts += ["   "] * bool(parts)
        if file.fault:
            parts.append(("warn", f"× {file.name} cannot be attached"))
            continue
        parts.append(("ref", f"+ {file.name}"))
        if whole:
            parts.append(("m", f" {file_size(file.size)}"))
            if file.tokens is not None:
                parts.append(("m", f" · {file.tokens:,} tok"))
    return parts
