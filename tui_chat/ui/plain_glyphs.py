"""What is drawn where the terminal has no UTF-8, or few signs in its font: one sign in ASCII for
each of ours, of the same width, so that nothing on the screen moves.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache

from rich.cells import split_graphemes

from tui_chat.types import Glyphs

_OURS = {
    **dict.fromkeys("▌▐▍▎▏▕▋▊▉│┃║", "|"),
    **dict.fromkeys("╏╎┆┇┊┋", ":"),
    **dict.fromkeys("━╸╺╾╼", "#"),
    **dict.fromkeys("─═▔▁", "-"),
    **dict.fromkeys("╌╍┄┅┈┉", "."),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╠╣╦╩╬", "+"),
    **dict.fromkeys("▂▃", ":"),
    **dict.fromkeys("▄▅", "="),
    **dict.fromkeys("▆▇█▀", "#"),
    **dict.fromkeys("▪•", "*"),
    **dict.fromkeys("◦·–—", "-"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”„", '"'),
    **{"■": "#", "×": "x", "↑": "^", "↓": "v", "←": "<", "→": ">", "◆": "*", "▫": "o"},
    **{"▸": "+", "▾": "-", "‹": "<", "›": ">", "…": ".", "≈": "~", "≡": "=", "☐": "_", "☑": "x"},
}
_TABLE = str.maketrans(_OURS)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def drawable(
    wanted: Glyphs, environ: Mapping[str, str] = os.environ
) -> Callable[[str], str] | None:
    """What makes any text one that this terminal can draw, or None where it can draw all.

    Where the terminal has UTF-8, letters stay as they are and only our signs are replaced.
    """
    has_utf8 = _has_utf8(environ)
    few_signs = environ.get("TERM", "").startswith(("linux", "vt"))
    if wanted == "unicode" or (wanted == "auto" and has_utf8 and not few_signs):
        return None
    return _ours_plain if has_utf8 else _all_plain


def _has_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale says so; without any it is assumed, for containers have none."""
    names = (environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "")
    return not locale or "utf8" in locale.lower().replace("-", "")


def _ours_plain(text: str) -> str:
    return text if text.isascii() else text.translate(_TABLE)


def _all_plain(text: str) -> str:
    return _NOT_ASCII.sub(_run_plain, text)


def _run_plain(run: re.Match[str]) -> str:
    spans, _ = split_graphemes(run.group())
    return "".join(_plain(run.group()[start:end], width) for start, end, width in spans)


@lru_cache(maxsize=4096)
def _plain(sign: str, width: int) -> str:
    """ASCII as wide as `sign`: our own, the letter under an accent, or question marks."""
    letter = unicodedata.normalize("NFKD", sign)[:1]
    found = _OURS.get(sign, letter)
    return found if found.isascii() and found.isprintable() and width == 1 else "?" * width
