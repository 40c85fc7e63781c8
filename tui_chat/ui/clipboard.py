"""The user's clipboard, reached through the terminal (OSC 52), so that it works over SSH."""

import base64
import os
from collections.abc import Mapping

LIMIT = 100_000
"""Bytes of base64 that terminals commonly accept in one OSC 52 sequence."""
SCREEN_CHUNK = 240
"""GNU screen passes at most 256 bytes through at a time."""
SCREEN_LIMIT = 700
"""Bytes of an unwrapped sequence that GNU screen swallows instead of printing them."""


def clipboard_sequence(text: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The sequence that puts `text` on the user's clipboard, or None if it is too long.

    Inside tmux it is sent twice: plain for `set-clipboard on`, wrapped for `allow-passthrough
    on`. GNU screen needs it wrapped in pieces. A tmux on the other side of an SSH connection may
    call itself "screen" as well; it takes the plain one, which is sent where it can do no harm.
    """
    payload = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    if len(payload) > LIMIT:
        return None
    plain = f"\x1b]52;c;{payload}\x1b\\"
    term = environ.get("TERM", "")
    if "TMUX" in environ or term.startswith("tmux"):
        return plain + "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if "STY" in environ or term.startswith("screen"):
        whole = f"\x1b]52;c;{payload}\x07"
        pieces = (whole[at : at + SCREEN_CHUNK] for at in range(0, len(whole), SCREEN_CHUNK))
        wrapped = "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
        return wrapped if "STY" in environ or len(plain) > SCREEN_LIMIT else wrapped + plain
    return plain
