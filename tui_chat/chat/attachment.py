"""Text files that go along with a prompt: read with care, written into it as fenced blocks.

The block is a part of the stored message, so that a conversation needs no other file.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from tui_chat.chat.sanitize import sanitize

LIMIT = 2_000_000
"""Bytes of one file; more tokens than most models can take."""

_MENTION = re.compile(r'(?<![^\s(\[])@(?:"([^"\n]+)"?|(\S+))')
_BLOCK = re.compile(
    r"File: (?P<path>[^\n]+)\n(?P<fence>`{3,})[^\n`]*\n(?P<text>.*?)\n(?P=fence)(?:\n\n|\Z)",
    re.DOTALL,
)
_TRAILING = ".,;:!?)]}'\""


class AttachmentError(Exception):
    """A file cannot be attached; `str()` is one sentence for the user."""

    def __init__(self, sentence: str, word: str) -> None:
        """`word` says the same where there is no room for the sentence."""
        super().__init__(sentence)
        self.word = word


@dataclass(frozen=True, slots=True)
class Attachment:
    """One text file as it goes into a prompt."""

    path: str
    """As the user wrote it, on one line."""
    text: str
    """Raw, as it is in the file."""
    size: int
    """Bytes of the file."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path.rstrip("/")) or self.path

    @property
    def block(self) -> str:
        """The path and the fenced text, which cannot close its own fence."""
        runs = (len(run) for run in re.findall(r"`{3,}", self.text))
        fence = "`" * (max(runs, default=2) + 1)
        suffix = os.path.splitext(self.name)[1][1:]
        language = suffix if re.fullmatch(r"[A-Za-z0-9_+-]{1,12}", suffix) else ""
        return f"File: {self.path}\n{fence}{language}\n{self.text.removesuffix(chr(10))}\n{fence}"


@dataclass(frozen=True, slots=True)
class Mention:
    """An `@path` in a text."""

    path: str
    start: int
    end: int
    """Of the whole word, with the `@` and the quotes."""
    quoted: bool


def mentions(text: str) -> list[Mention]:
    """Every word of `text` that begins with `@`; most of them may be no paths at all."""
    return [
        Mention(match[1] or match[2], match.start(), match.end(), match[1] is not None)
        for match in _MENTION.finditer(text)
    ]


def mentioned_paths(text: str) -> list[str]:
    """The paths after an `@` that exist, each once; a word in quotes counts in any case.

    Looks at the disk: not for the thread of the screen.
    """
    paths: dict[str, None] = {}
    for mention in mentions(text):
        if mention.quoted:
            paths[mention.path] = None
            continue
        # "see @notes.txt, please": the comma is no part of the path unless such a file exists.
        for path in dict.fromkeys((mention.path, mention.path.rstrip(_TRAILING))):
            if path and _exists(path):
                paths[path] = None
                break
    return list(paths)


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(os.path.expanduser(path))
    except ValueError:
        return False


def read_attachment(path: str) -> Attachment:
    """Read a text file. It never waits on a pipe or a device.

    Raises:
        AttachmentError: it is no regular file of UTF-8 text, cannot be read, or is too large.
    """
    shown = " ".join(sanitize(path).split())
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(os.path.expanduser(path), flags)
    except FileNotFoundError:
        raise AttachmentError(f"There is no file {shown}.", "not there") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AttachmentError(f"{shown} cannot be read ({reason}).", "unreadable") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            sentence = f"{shown} is a folder; attach the files in it one by one."
            raise AttachmentError(sentence, "a folder")
        if not stat.S_ISREG(mode):
            sentence = f"{shown} is no regular file, so it cannot be attached."
            raise AttachmentError(sentence, "no regular file")
        data = _read(descriptor)
    except OSError as error:
        sentence = f"{shown} cannot be read ({error.strerror})."
        raise AttachmentError(sentence, "unreadable") from error
    finally:
        os.close(descriptor)
    if b"\x00" in data[:8192]:
        sentence = f"{shown} is not a text file, so it cannot be attached."
        raise AttachmentError(sentence, "not text")
    if len(data) > LIMIT:
        limit = f"{LIMIT / 1e6:.0f} MB"
        sentence = f"{shown} is larger than {limit}, which is the most for one file."
        raise AttachmentError(sentence, f"over {limit}")
    if not data:
        raise AttachmentError(f"{shown} is empty.", "empty")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sentence = f"{shown} is not text in UTF-8, so it cannot be attached."
        raise AttachmentError(sentence, "not UTF-8") from error
    return Attachment(shown, text, len(data))


def _read(descriptor: int) -> bytes:
    """The file to its end, or one byte more than the limit."""
    parts: list[bytes] = []
    missing = LIMIT + 1
    while missing and (part := os.read(descriptor, missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def compose(text: str, attachments: Sequence[Attachment]) -> str:
    """The message that is sent: the files first, then what the user wrote."""
    return "\n\n".join([*(attachment.block for attachment in attachments), text])


def split_attachments(content: str) -> tuple[list[Attachment], str]:
    """The files at the beginning of a message, and the rest of it."""
    found = []
    position = 0
    while match := _BLOCK.match(content, position):
        text = match["text"] + "\n"
        path = match["path"]
        found.append(Attachment(path, text, len(text.encode("utf-8", "replace"))))
        position = match.end()
    return found, content[position:]


def title_text(content: str) -> str:
    """The part of a message that a title is made of: what was written, or the names of files."""
    files, text = split_attachments(content)
    return text if text.strip() else ", ".join(file.name for file in files)
