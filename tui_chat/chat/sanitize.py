"""Untrusted text made safe to show. It maps characters one by one and never parses sequences,
so that text in any number of pieces comes out as the whole text would."""

import re

_REPLACED = (
    "\x80-\x9f"  # C1 controls: 0x9b alone opens an escape sequence on some terminals
    "\u202a-\u202e"  # bidirectional overrides
    "\u2066-\u206f"  # bidirectional isolates and deprecated format characters
    "\ud800-\udfff"  # lone surrogates cannot be encoded
    "\ufff9-\ufffb"  # interlinear annotation
    "\U000e0000-\U000e007f"  # tags: text that no reader sees
    "\u200b\u2028\u2029\u2060\ufeff"  # zero width, and line ends of other alphabets
)
# Dropped without a mark: the CR of CR LF, and direction marks, which are plain Arabic and Hebrew
# typography. A lone CR goes too, for a mark would depend on where a stream was cut.
_DROPPED = "\r\u061c\u200e\u200f"
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f{_DROPPED}{_REPLACED}]")


def _mark(match: re.Match[str]) -> str:
    character = match.group()
    if character in _DROPPED:
        return ""
    if character == "\x7f":
        return "\u2421"
    return chr(0x2400 + ord(character)) if character < " " else "\ufffd"


def sanitize(text: str) -> str:
    """`text` without a character that a terminal could take as a command or a disguise.

    C0 controls and DEL become their Unicode pictures, other unsafe characters U+FFFD, CR is
    dropped; tab and newline stay. `sanitize(a + b) == sanitize(a) + sanitize(b)`.
    """
    return _UNSAFE.sub(_mark, text)


def one_line(text: str, limit: int) -> str:
    """`text` as one sanitised line of at most `limit` characters, cut between words if it can."""
    line = " ".join(sanitize(text[: limit * 20]).split())
    if len(line) <= limit:
        return line
    head = line[:limit].rpartition(" ")[0]
    # A single long word, or a text without spaces, is cut anywhere.
    return (head if len(head) > limit // 2 else line[: limit - 1]).rstrip() + "…"
