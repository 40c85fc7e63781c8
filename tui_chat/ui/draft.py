"""What goes along with the text in the box, and what it all costs. Runs outside the screen's
thread: files may be slow, and so may a tokenizer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tui_chat.chat.attachment import (
    Attachment,
    AttachmentError,
    compose,
    mentioned_paths,
    read_attachment,
    split_attachments,
)
from tui_chat.chat.draft_meter import estimate_text

if TYPE_CHECKING:
    from tui_chat.chat.draft_meter import DraftMeter, PromptSize
    from tui_chat.chat.session import Session


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens a text has."""

    number: int
    exact: bool
    """Whether they were counted by the model's own tokenizer."""

    def __str__(self) -> str:
        return f"{'' if self.exact else '≈'}{self.number:,} tok"


@dataclass(frozen=True, slots=True)
class DraftFile:
    """One file of the draft, for the row above the text."""

    name: str
    size: int = 0
    """Bytes; 0 of a file that cannot be attached."""
    tokens: Tokens | None = None
    fault: str = ""
    """Why it cannot be attached, in a word or two; empty when it can."""


@dataclass(frozen=True, slots=True)
class DraftCount:
    """What a draft consists of, and its size."""

    size: "PromptSize | None"
    """The next prompt with it; None while that is not counted."""
    about: int
    """Tokens of the draft, roughly, as long as there is no `size`."""
    files: tuple[DraftFile, ...] = ()
    folded: Mapping[str, Tokens] = field(default_factory=dict)
    """Of each text behind a label in the box."""


@dataclass(frozen=True, slots=True)
class ReadDraft:
    """A draft with its files, which were read."""

    text: str
    """The whole text of the box; empty for one that is no message."""
    files: tuple[Attachment | DraftFile, ...]
    """In their order; a `DraftFile` is one that cannot be attached."""
    folded: tuple[str, ...]
    """The texts behind the labels in the box."""

    @property
    def prompt(self) -> str:
        """The message that would be sent."""
        return compose(self.text, [file for file in self.files if isinstance(file, Attachment)])


def read_draft(text: str, attached: Sequence[str], folded: tuple[str, ...]) -> ReadDraft:
    """Read the files that a draft names or that were attached by a command."""
    files: list[Attachment | DraftFile] = []
    for path in _paths(text, attached):
        try:
            files.append(read_attachment(path))
        except AttachmentError as error:
            files.append(DraftFile(os.path.basename(path) or path, fault=error.word))
    return ReadDraft(text, tuple(files), folded)


def estimate_draft(session: "Session", meter: "DraftMeter", draft: ReadDraft) -> DraftCount:
    """What a draft may cost, at once, while it is being counted or no model is loaded."""
    return _told(session, meter, draft, None, estimate_text(session, draft.prompt))


def count_draft(
    session: "Session",
    meter: "DraftMeter",
    draft: ReadDraft,
    *,
    thinking: bool | None = None,
    instead_of: str | None = None,
) -> DraftCount:
    """Count everything, as exactly as the model can; an estimate where none is loaded.

    Args:
        session: the conversation that the draft is for.
        meter: measures the prompts of `session`.
        draft: what is counted.
        thinking: whether the model is to reason first.
        instead_of: id of the question that the draft takes the place of.

    Raises:
        EngineError: the prompt cannot be rendered.
    """
    blocks = [file.block for file in draft.files if isinstance(file, Attachment)]
    meter.count_texts([*draft.folded, *blocks])
    size = meter.measure(draft.prompt, thinking, instead_of)
    if size is None:
        return estimate_draft(session, meter, draft)
    return _told(session, meter, draft, size, size.draft_tokens)


def _told(
    session: "Session",
    meter: "DraftMeter",
    draft: ReadDraft,
    size: "PromptSize | None",
    about: int,
) -> DraftCount:
    engine = session.engine

    def tokens(text: str) -> Tokens:
        counted = meter.counted(text)
        if counted is None or engine is None:
            return Tokens(estimate_text(session, text), exact=False)
        return Tokens(counted, engine.exact_counts)

    files = tuple(
        file if isinstance(file, DraftFile) else DraftFile(file.name, file.size, tokens(file.block))
        for file in draft.files
    )
    return DraftCount(size, about, files, {text: tokens(text) for text in draft.folded})


def with_files(text: str, attached: Sequence[str]) -> str:
    """The message that is sent: the attached and mentioned files, then the text.

    Raises:
        AttachmentError: one of them cannot be attached; one sentence.
    """
    return compose(text, [read_attachment(path) for path in _paths(text, attached)])


def _paths(text: str, attached: Sequence[str]) -> list[str]:
    """The files to read; those in an edited message are in it already."""
    files, _ = split_attachments(text)
    there = {file.path for file in files}
    paths = dict.fromkeys([*attached, *mentioned_paths(text)])
    return [path for path in paths if path not in there]
