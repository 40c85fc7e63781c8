"""The hits of a search, from the tables of the index."""

import contextlib
import sqlite3
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tui_chat.store.search import snippet_of, trigram_query
from tui_chat.types import ChatHits, FoundText, Role, SearchHit

_EPOCH = datetime.fromtimestamp(0, UTC)
_ROLES = {role.value: role for role in Role}
_MOST_MATCHES = 5000
"""So many matching messages are looked at to count the hits of each conversation."""


@dataclass(frozen=True, slots=True)
class _Match:
    """A row of the message table that holds all words."""

    conversation: int
    id: str
    role: str
    created: int
    text: str


def search_hits(
    database: sqlite3.Connection, words: list[str], limit: int, each: int, *, trigrams: bool
) -> list[SearchHit]:
    """Up to `limit` hits, `each` in a conversation, last written first."""
    hits: list[SearchHit] = []
    counts: dict[int, int] = {}
    with contextlib.closing(_matches(database, words, trigrams)) as matches:
        for match in matches:
            if len(hits) >= limit:
                break
            if counts.get(match.conversation, 0) >= each:
                continue
            counts[match.conversation] = counts.get(match.conversation, 0) + 1
            id_, title, _ = _conversation(database, match.conversation)
            hits.append(_hit(match, words, id_, title))
    return hits


def chat_hits(
    database: sqlite3.Connection,
    words: list[str],
    limit: int,
    *,
    archived: bool,
    trigrams: bool,
) -> list[ChatHits]:
    """Up to `limit` conversations with hits, the one with the last written hit first.

    Without `archived` the archived ones are counted at most: they come last, without a hit.
    """
    found: dict[int, ChatHits] = {}
    hidden: dict[int, ChatHits] = {}
    with contextlib.closing(_matches(database, words, trigrams)) as matches:
        for number, match in enumerate(matches):
            if number >= _MOST_MATCHES:
                break
            known = found.get(match.conversation)
            if known is not None and known.count:
                found[match.conversation] = replace(known, count=known.count + 1)
            elif match.conversation not in hidden:
                id_, title, is_archived = _conversation(database, match.conversation)
                if is_archived and not archived:
                    hidden[match.conversation] = ChatHits(id_, None, 0)
                elif known is None and len(found) >= limit:
                    break
                else:  # a message takes the place of the title
                    hit = _hit(match, words, id_, title)
                    found[match.conversation] = ChatHits(id_, hit, int(bool(match.id)))
    return [*found.values(), *hidden.values()]


def found_texts(
    database: sqlite3.Connection, id_: str, words: list[str], limit: int
) -> list[FoundText]:
    """The texts of one conversation that hold all words, in the order of their writing."""
    rows = database.execute(
        "SELECT m.id, m.role, m.text, coalesce(m.folded, m.text) FROM message m "
        "JOIN conversation c ON m.conversation = c.key WHERE c.id = ? ORDER BY m.number",
        (id_,),
    )
    found: list[FoundText] = []
    with contextlib.closing(rows):
        for message_id, role, text, folded in rows:
            if all(word in folded for word in words):
                found.append(
                    FoundText(as_text(message_id) or None, _ROLES.get(role), as_text(text))
                )
                if len(found) >= limit:
                    break
    return found


def _matches(
    database: sqlite3.Connection, words: list[str], trigrams: bool
) -> Generator[_Match, None, None]:
    """The messages and titles that hold all words, last written first."""
    query = trigram_query(words) if trigrams else ""
    source = "message m"
    values: list[object] = [max(words, key=len)]
    condition = "instr(coalesce(m.folded, m.text), ?) > 0"
    order = "m.number"
    if query:
        source = "trigram CROSS JOIN message m ON m.number = trigram.rowid"
        condition = f"trigram MATCH ? AND {condition}"
        values.insert(0, query)
        order = "trigram.rowid"
    rows = database.execute(
        "SELECT m.conversation, m.id, m.role, m.created, m.text, coalesce(m.folded, m.text) "
        f"FROM {source} WHERE {condition} ORDER BY {order} DESC",
        values,
    )
    with contextlib.closing(rows):
        for key, id_, role, created, text, folded in rows:
            if all(word in folded for word in words):
                yield _Match(key, as_text(id_), role, created, as_text(text))


def _conversation(database: sqlite3.Connection, key: int) -> tuple[str, str, bool]:
    """Id, title and whether it is archived."""
    id_, title, archived = database.execute(
        "SELECT id, title, archived FROM conversation WHERE key = ?", (key,)
    ).fetchone()
    return id_, as_text(title), bool(archived)


def _hit(match: _Match, words: list[str], conversation_id: str, title: str) -> SearchHit:
    return SearchHit(
        conversation_id,
        title,
        match.id or None,
        _ROLES.get(match.role),
        as_time(match.created),
        *snippet_of(match.text, words[0]),
    )


def packed(text: str) -> str | bytes:
    """`text` for SQLite, which knows no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def as_text(value: str | bytes) -> str:
    """The text that was `packed`.

    Raises:
        TypeError: it is none; the index is damaged.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogatepass")
    if not isinstance(value, str):
        raise TypeError("the index holds something that is no text")
    return value


def as_number(moment: datetime) -> int:
    """A time for the index: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def as_time(number: int) -> datetime:
    """The time of `as_number`.

    Raises:
        OverflowError: it is none; the index is damaged.
    """
    return _EPOCH + timedelta(microseconds=number)
