"""The commands for stored conversations: list, show, search, export and import."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from tui_chat.chat.sanitize import sanitize
from tui_chat.files import atomic_write
from tui_chat.output import UsageError, complain, write
from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.exchange import FORMATS, export, json_object, to_json
from tui_chat.store.foreign import ImportFault, read_conversations
from tui_chat.store.tree import MessageTree
from tui_chat.types import ConversationSummary, SearchHit


def run_list(
    store: ConversationStore,
    limit: int | None,
    *,
    pinned: bool | None = None,
    archived: bool | None = False,
    as_json: bool,
) -> int:
    """Print the conversations, last used first; one a line, or one JSON object a line.

    `pinned` and `archived` take only those that are, or only those that are not; None takes both.
    """
    lines = [
        _json_line(asdict(summary))
        if as_json
        else f"{summary.id}  {_local(summary.updated_at)}  {summary.message_count:5}  "
        f"{_line(summary.model)[:24]:<24}  {_line(summary.title)}{_flags(summary)}\n"
        for summary in store.summaries(limit, pinned=pinned, archived=archived)
    ]
    write("".join(lines))
    return 0


def run_show(store: ConversationStore, start: str, *, as_json: bool) -> int:
    """Print the conversation whose id begins with `start`: its open branch, or all as JSON.

    Raises:
        UsageError: there is not exactly one.
        StoreError: it cannot be read.
    """
    tree = store.read(_find(store, start))
    _tell_damage(tree)
    if as_json:
        write(to_json(json_object(tree)) + "\n")
    else:
        write("".join(export([tree], "markdown")))
    return 0


def run_search(store: ConversationStore, words: str, limit: int, *, as_json: bool) -> int:
    """Print the messages that hold all `words`, last written first; 1 if there are none.

    Raises:
        UsageError: there are no words.
    """
    if not words.strip():
        raise UsageError('There is nothing to search for: tui-chat search "…".')
    hits = store.search(words, limit, each=limit)
    for hit in hits:
        if as_json:
            write(_json_line(asdict(hit)))
        else:
            who = hit.role.value if hit.role else "title"
            write(
                f"{hit.conversation_id}  {_local(hit.created_at)}  {who:<9}  {_line(hit.title)}\n"
            )
            _write_snippet(hit)
    if not hits:
        complain(f'No chat holds "{_line(words)}".')
    return 0 if hits else 1


def run_export(
    store: ConversationStore, start: str | None, format_: str, output: str | None
) -> int:
    """Write one conversation, or all where `start` is None, to standard output or to `output`.

    A folder (one that exists, or a path with a slash at its end) gets a file for each.

    Raises:
        UsageError: there is not exactly one whose id begins with `start`.
        StoreError: it cannot be read, or `output` cannot be written.
    """
    ids = [s.id for s in store.summaries()] if start is None else [_find(store, start)]
    if output is None:
        for part in export(_trees(store, ids), format_):
            write(part)
    elif Path(output).is_dir() or output.endswith(os.sep):
        for tree in _trees(store, ids):
            target = Path(output, f"{tree.header.id}{FORMATS[format_]}")
            _write_file(target, "".join(export([tree], format_)))
    else:
        _write_file(Path(output), "".join(export(_trees(store, ids), format_)))
    return 0


def run_import(store: ConversationStore, paths: Sequence[Path]) -> int:
    """Store the conversations of foreign files as new ones, and print their ids and titles.

    Returns 1 when a file could not be read or stored; the others are taken all the same.
    """
    good = True
    for path in paths:
        try:
            found, notes = read_conversations(path.read_bytes())
        except OSError as error:
            complain(f"{path} cannot be read ({error.strerror}).")
            good = False
            continue
        except ImportFault as fault:
            complain(f"{path} {fault}.")
            good = False
            continue
        for note in notes:
            complain(f"{path}: {note}.")
        good = good and bool(found)
        for imported in found:
            try:
                id_ = store.add(imported.tree)
            except StoreError as error:
                complain(f"{path}: {error}")
                return 1
            title = _line(imported.tree.header.title) or "without a title"
            write(f"{id_}  {len(imported.tree.messages):5}  {title}\n")
            if imported.left_out:
                complain(f"{path}, {id_}: left out {', '.join(imported.left_out)}.")
    return 0 if good else 1


def _find(store: ConversationStore, start: str) -> str:
    try:
        return store.find(start)
    except StoreError as error:
        raise UsageError(str(error)) from error


def _trees(store: ConversationStore, ids: Sequence[str]) -> Iterator[MessageTree]:
    for id_ in ids:
        tree = store.read(id_)
        _tell_damage(tree)
        yield tree


def _tell_damage(tree: MessageTree) -> None:
    if tree.damaged:
        noun = "damaged record is" if tree.damaged == 1 else "damaged records are"
        complain(f"{tree.header.id}: {tree.damaged} {noun} left out.")
    if tree.is_newer:
        complain(f"{tree.header.id} was written by a newer tui-chat; some of it may be missing.")
    if tree.unknown:
        noun = (
            "record of an unknown kind is" if tree.unknown == 1 else "records of unknown kinds are"
        )
        complain(f"{tree.header.id}: {tree.unknown} {noun} in its file alone.")


def _write_file(path: Path, text: str) -> None:
    try:
        if path.exists() and not path.is_file():  # a device or a pipe is written to, not replaced
            path.write_text(text, encoding="utf-8")
        else:
            atomic_write(path, text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}).") from error


def _write_snippet(hit: SearchHit) -> None:
    """The snippet on a line of its own, the hit in bold where a terminal shows it."""
    text = hit.snippet
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        write(f"    {text}\n")
        return
    before, found, behind = map(
        sanitize, (text[: hit.start], text[hit.start : hit.end], text[hit.end :])
    )
    print(f"    {before}\x1b[1m{found}\x1b[22m{behind}")


def _flags(summary: ConversationSummary) -> str:
    return "  (pinned)" * summary.pinned + "  (archived)" * summary.archived


def _json_line(values: dict[str, object]) -> str:
    plain = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}
    return to_json(plain) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _local(moment: datetime) -> str:
    with contextlib.suppress(OverflowError, OSError, ValueError):
        moment = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M}"
