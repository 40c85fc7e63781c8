"""Bytes of a streamed answer to events, as the standard of server-sent events says."""

MOST_EVENT_BYTES = 8_000_000
"""A server that writes more without an end of line is not one that we talk to."""


class EventTooLong(ValueError):
    """One event is larger than any part of a reply could be."""


class EventParser:
    """Cuts bytes that come in any pieces into the data of events.

    Line ends may be LF, CR LF or CR, also torn between two pieces; comments, which keep a
    connection alive, and fields other than `data` and `error` are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._data: list[str] = []

    def push(self, data: bytes) -> list[str]:
        """The data of each event that `data` completes.

        Raises:
            EventTooLong: an event does not end.
        """
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        events: list[str] = []
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line[:6] == b"data: ":
                self._data.append(line[6:].decode("utf-8", "replace"))
            elif not line:
                if self._data:
                    events.append(self._event())
            else:
                self._field(line)
        if len(self._rest) > MOST_EVENT_BYTES:
            raise EventTooLong
        return events

    def finish(self) -> list[str]:
        """The data of an event that the end of the answer left without its blank line."""
        if self._rest:
            self._field(self._rest)
            self._rest = b""
        return [self._event()] if self._data else []

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        # "error" is no field of the standard; older llama.cpp writes its errors behind it.
        if name in (b"data", b"error"):
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))

    def _event(self) -> str:
        data = "\n".join(self._data) if len(self._data) > 1 else self._data[0]
        self._data.clear()
        return data

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # of a CR LF that was torn
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
