"""The user's clipboard, reached through the terminal (OSC 52), so that it works over SSH."""

import base64
import os
from collections.abc import Mapping

from tui_chat.ui.terminal import is_screen, is_tmux

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
    payload = _payload(text)
    if len(payload) > LIMIT:
        return None
    plain = _plain(payload)
    if is_tmux(environ):
        return plain + "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if is_screen(environ):
        whole = f"\x1b]52;c;{payload}\x07"
        pieces = (whole[at : at + SCREEN_CHUNK] for at in range(0, len(whole), SCREEN_CHUNK))
        wrapped = "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
        return wrapped if "STY" in environ or len(plain) > SCREEN_LIMIT else wrapped + plain
    return plain


def may_be_lost(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `text` may not arrive though its sequence is sent.

    That is so where a long one goes to a terminal which only calls itself "screen": GNU screen
    would print the plain sequence, and the wrapped one is nothing to a tmux.
    """
    unsure = is_screen(environ) and "STY" not in environ
    return unsure and len(_plain(_payload(text))) > SCREEN_LIMIT


def _payload(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def _plain(payload: str) -> str:
    return f"\x1b]52;c;{payload}\x1b\\"
