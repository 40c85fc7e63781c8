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

if TYPE_CHECKING:
    from tui_chat.chat.draft_meter import DraftMeter, PromptSize
    from tui_chat.chat.session import Session


@dataclass(frozen=True, slots=True)
class DraftFile:
    """One file of the draft, for the row above the text."""

    name: str
    size: int = 0
    """Bytes; 0 of a file that cannot be attached."""
    tokens: int | None = None
    fault: str = ""
    """Why it cannot be attached; empty when it can."""


@dataclass(frozen=True, slots=True)
class DraftCount:
    """What a draft consists of, and its exact size."""

    size: "PromptSize | None"
    """The next prompt with it; None while no model is loaded."""
    files: tuple[DraftFile, ...] = ()
    label_tokens: Mapping[str, int] = field(default_factory=dict)
    """Of each folded part of the box."""


def count_draft(
    session: "Session",
    meter: "DraftMeter",
    text: str,
    attached: Sequence[str],
    labels: Mapping[str, str],
    *,
    thinking: bool | None = None,
    instead_of: str | None = None,
) -> DraftCount:
    """Read the files that a draft names and count everything.

    Args:
        session: the conversation that the draft is for.
        meter: measures the prompts of `session`.
        text: the whole text of the box; empty for one that is no message.
        attached: paths that were attached by a command.
        labels: the text behind each label in the box.
        thinking: whether the model is to reason first.
        instead_of: id of the question that the draft takes the place of.

    Raises:
        EngineError: the prompt cannot be rendered.
    """
    readable: list[Attachment] = []
    files: list[DraftFile] = []
    for path in _paths(text, attached):
        try:
            attachment = read_attachment(path)
        except AttachmentError as error:
            files.append(DraftFile(os.path.basename(path) or path, fault=str(error)))
        else:
            readable.append(attachment)
            tokens = session.count_text(attachment.block)
            files.append(DraftFile(attachment.name, attachment.size, tokens))
    size = meter.measure(compose(text, readable), thinking, instead_of)
    counted = {label: session.count_text(folded) for label, folded in labels.items()}
    return DraftCount(
        size,
        tuple(files),
        {label: tokens for label, tokens in counted.items() if tokens is not None},
    )


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
