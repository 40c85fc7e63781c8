"""Finds pastes in the bytes of a terminal, before Textual's parser sees them.

That parser goes through a paste character by character, waits for ever for an end that never
comes, and takes what stands behind a forged end for keys.
"""

import re
from dataclasses import dataclass

START, END = b"\x1b[200~", b"\x1b[201~"

LIMIT = 4_000_000
"""Bytes of one paste that are taken: about a million tokens."""
IDLE = 2.0
"""Seconds of silence after which a paste without an end is over."""
SETTLE = 0.05
"""Seconds of silence after which an end is believed. What follows at once may be more of the
paste: a terminal that does not filter lets a text end the paste itself and press keys."""
MARKER_GAP = 0.02
"""Seconds after which the beginning of a marker was something else, such as the Esc key."""
UNMARKED = 256
"""So many bytes of plain text at once are no typing: GNU screen and old terminals do not mark
pastes, and their line ends would send every line as a message."""
LONGEST_HOLD = 1.0
"""Seconds that keys behind a paste may be held back in all, however much arrives."""

_PLAIN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Paste:
    """One paste; `text` is None when it was too large to take."""

    text: str | None
    size: int
    """Its bytes."""


class PasteSplitter:
    """Splits a stream of bytes into keys (bytes) and pastes; times are in seconds."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._inside = False
        self._unmarked = False
        self._paste = bytearray()
        self._size = 0
        self._held: bytearray | None = None
        """What came behind the end of a paste; None when none has just ended."""
        self._tail = b""
        """What may be the beginning of a marker."""
        self._last = 0.0
        self._ended = 0.0

    @property
    def waits(self) -> bool:
        """Whether `tick` is due soon."""
        return self._inside or self._unmarked or self._held is not None or bool(self._tail)

    def feed(self, data: bytes, now: float) -> list[bytes | Paste]:
        """Take what has arrived; what is clear by now comes back in order."""
        found = self.tick(now)
        self._last = now
        data, self._tail = self._tail + data, b""
        while data:
            if self._inside:
                data = self._take_paste(data, now)
            elif self._held is not None:
                data = self._take_held(data, found)
            elif self._unmarked:
                data = self._take_unmarked(data, found)
            else:
                data = self._take_keys(data, found)
        return found

    def tick(self, now: float) -> list[bytes | Paste]:
        """What has become clear because nothing has arrived for a while."""
        found: list[bytes | Paste] = []
        silence = now - self._last
        if self._inside and silence >= IDLE:
            self._add(self._tail)
            self._tail, self._inside = b"", False
            self._finish(found)
        elif self._unmarked or self._held is not None:
            longest = self._held is not None and now - self._ended >= LONGEST_HOLD
            if silence >= SETTLE or longest:
                self._finish(found)
        if self._tail and not self._inside and silence >= MARKER_GAP:
            found.append(self._tail)
            self._tail = b""
        return found

    def _take_keys(self, data: bytes, found: list[bytes | Paste]) -> bytes:
        plain = _PLAIN.match(data)
        if plain and plain.end() >= UNMARKED:
            self._unmarked = True
            return data
        keys, marker, rest = data.partition(START)
        if not marker:
            keys, self._tail = _cut_tail(data, START)
        if keys:
            found.append(keys)
        self._inside = bool(marker)
        return rest

    def _take_paste(self, data: bytes, now: float) -> bytes:
        text, marker, rest = data.partition(END)
        if not marker:
            text, self._tail = _cut_tail(data, END)
        self._add(text)
        if marker:
            self._inside, self._held, self._ended = False, bytearray(), now
        return rest

    def _take_unmarked(self, data: bytes, found: list[bytes | Paste]) -> bytes:
        plain = _PLAIN.match(data)
        end = plain.end() if plain else 0
        self._add(data[:end])
        if end < len(data):
            self._finish(found)
        return data[end:]

    def _take_held(self, data: bytes, found: list[bytes | Paste]) -> bytes:
        held = self._held = self._held or bytearray()
        since = max(0, len(held) - len(END) + 1)
        held += data
        start, end = held.find(START, since), held.find(END, since)
        if end >= 0 and (start < 0 or end < start):
            # A second end without a start: all before it belongs to the paste.
            rest = bytes(held[end + len(END) :])
            self._add(held[:end])
            self._held = bytearray()
            return rest
        if start >= 0:
            rest = bytes(held[start:])
            del held[start:]
            self._finish(found)
            return rest
        return b""

    def _add(self, text: bytes | bytearray) -> None:
        self._size += len(text)
        if self._size <= self._limit:
            self._paste += text
        else:
            self._paste.clear()

    def _finish(self, found: list[bytes | Paste]) -> None:
        """The paste is over, and so is what was held back behind it."""
        text = None
        if self._size <= self._limit:
            text = self._paste.decode("utf-8", "replace").replace("\x00", "")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        found.append(Paste(text, self._size))
        if self._held:
            found.append(bytes(self._held))
        self._paste, self._size, self._held, self._unmarked = bytearray(), 0, None, False


def _cut_tail(data: bytes, marker: bytes) -> tuple[bytes, bytes]:
    """`data` and the end of it that may be the beginning of `marker`."""
    for length in range(min(len(marker) - 1, len(data)), 0, -1):
        if data.endswith(marker[:length]):
            return data[:-length], data[-length:]
    return data, b""
