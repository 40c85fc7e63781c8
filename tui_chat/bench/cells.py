"""The cells of a terminal after the bytes it was sent, as far as a full-screen program uses it."""

import codecs
import re
import unicodedata

_TOKEN = re.compile(
    r"\x1b\[(?P<numbers>[0-9;:?<>=$! ]*)(?P<command>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # title, clipboard, mouse pointer
    r"|\x1bP[^\x1b]*\x1b\\"
    r"|\x1b(?P<escape>[^\[\]P])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
)


class Cells:
    """A grid of characters that bytes are drawn on; colours and styles are passed over."""

    def __init__(self, columns: int, lines: int) -> None:
        self.is_full_screen = False
        """Whether the program has switched to the alternate screen."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Begin anew with another size, for a program draws all again then."""
        self._columns, self._lines = columns, lines
        self._rows = [[" "] * columns for _ in range(lines)]
        self._x = self._y = self._top = 0
        self._bottom = lines - 1

    @property
    def text(self) -> str:
        """What is shown, row by row."""
        return "\n".join("".join(row).rstrip() for row in self._rows)

    def feed(self, data: bytes) -> None:
        """Draw what these bytes say; a sequence that is cut in two goes on with the next ones."""
        text = self._rest + self._decoder.decode(data)
        position = 0
        while match := _TOKEN.match(text, position):
            position = match.end()
            kind = match.lastgroup
            if kind == "text":
                self._write(match["text"])
            elif kind == "command":
                self._do(match["command"], match["numbers"])
            elif kind == "control":
                self._control(match["control"])
            elif kind == "escape" and match["escape"] == "M":
                self._line_up()
        self._rest = text[position:]

    def _write(self, text: str) -> None:
        row = self._rows[self._y]
        for character in text:
            if unicodedata.combining(character):
                continue
            wide = unicodedata.east_asian_width(character) in "WF"
            if self._x + wide < self._columns:
                row[self._x] = character
                if wide:
                    row[self._x + 1] = ""
                self._x += 1 + wide

    def _control(self, character: str) -> None:
        match character:
            case "\r":
                self._x = 0
            case "\b":
                self._x = max(0, self._x - 1)
            case "\n" if self._y == self._bottom:
                del self._rows[self._top]
                self._rows.insert(self._bottom, [" "] * self._columns)
            case "\n":
                self._y = min(self._y + 1, self._lines - 1)

    def _line_up(self) -> None:
        if self._y == self._top:
            del self._rows[self._bottom]
            self._rows.insert(self._top, [" "] * self._columns)
        else:
            self._y = max(0, self._y - 1)

    def _do(self, command: str, numbers: str) -> None:
        if numbers[:1] in ("?", "<", ">", "="):
            if command == "h" and numbers == "?1049":
                self.resize(self._columns, self._lines)
                self.is_full_screen = True
            return
        given = [int(number) if number.isdecimal() else 0 for number in numbers.split(";")]
        first, second = [*given, 0, 0][:2]
        match command:
            case "H" | "f":
                self._go(second - 1, first - 1)
            case "G":
                self._go(first - 1, self._y)
            case "d":
                self._go(self._x, first - 1)
            case "r":
                self._top = max(0, first - 1)
                self._bottom = min(second or self._lines, self._lines) - 1
                self._go(0, 0)
            case "J" if first == 2:
                self._rows = [[" "] * self._columns for _ in range(self._lines)]
            case "K":
                start, end = (self._x, self._columns) if first == 0 else (0, self._x + 1)
                end = self._columns if first == 2 else end
                self._rows[self._y][start:end] = [" "] * (end - start)

    def _go(self, x: int, y: int) -> None:
        self._x = min(max(0, x), self._columns - 1)
        self._y = min(max(0, y), self._lines - 1)
