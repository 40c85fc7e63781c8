"""Untrusted text made safe to show. It maps characters one by one and never parses sequences,
so that text in any number of pieces comes out as the whole text would."""

import re

_REPLACEMENT = 0xFFFD
_ESCAPES = (
    range(0x80, 0xA0),  # C1 controls: 0x9b alone opens an escape sequence on some terminals
    range(0x202A, 0x202F),  # bidirectional overrides
    range(0x2066, 0x2070),  # bidirectional isolates and deprecated format characters
    range(0xD800, 0xE000),  # lone surrogates cannot be encoded
    range(0xFFF9, 0xFFFC),  # interlinear annotation
    range(0xE0000, 0xE0080),  # tags: text that no reader sees
    (0x200B, 0x2028, 0x2029, 0x2060, 0xFEFF),  # zero width, and line ends of other alphabets
)
_MAP: dict[int, int | None] = {code: 0x2400 + code for code in range(0x20)}
del _MAP[0x09], _MAP[0x0A]
_MAP[0x7F] = 0x2421
_MAP.update({code: _REPLACEMENT for codes in _ESCAPES for code in codes})
# Dropped without a mark: the CR of CR LF, and direction marks, which are plain Arabic and Hebrew
# typography. A lone CR goes too, for a mark would depend on where a stream was cut.
_MAP.update(dict.fromkeys((0x0D, 0x061C, 0x200E, 0x200F)))

_UNSAFE = re.compile("[" + "".join(re.escape(chr(code)) for code in sorted(_MAP)) + "]")


def sanitize(text: str) -> str:
    """`text` without a character that a terminal could take as a command or a disguise.

    C0 controls and DEL become their Unicode pictures, other unsafe characters U+FFFD, CR is
    dropped; tab and newline stay. `sanitize(a + b) == sanitize(a) + sanitize(b)`.
    """
    return text.translate(_MAP) if _UNSAFE.search(text) else text


def one_line(text: str, limit: int) -> str:
    """`text` as one sanitised line of at most `limit` characters, cut between words if it can."""
    line = " ".join(sanitize(text[: limit * 20]).split())
    if len(line) <= limit:
        return line
    head = line[:limit].rpartition(" ")[0]
    # A single long word, or a text without spaces, is cut anywhere.
    return (head if len(head) > limit // 2 else line[: limit - 1]).rstrip() + "…"
