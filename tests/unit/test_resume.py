from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.resume import find_chat, ids_from, last_used
from tui_chat.types import Message, Role

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path / "data", tmp_path / "cache")


def add(store: ConversationStore, title: str, text: str, minute: int) -> str:
    log = store.create(title=title)
    log.append(Message("u1", Role.USER, text, START + timedelta(minutes=minute)))
    log.close()
    return log.id


def test_the_last_used_chat_is_the_first_of_the_list(store: ConversationStore) -> None:
    with pytest.raises(StoreError, match="no chat to continue"):
        last_used(store)
    last = add(store, "B", "two", 5)
    add(store, "A", "one", 0)
    assert last_used(store) == last
    log = store.open(last)
    log.flag(archived=True)
    log.close()
    assert last_used(store) != last


def test_a_chat_is_meant_by_its_id_by_its_title_or_by_its_content(
    store: ConversationStore,
) -> None:
    backups = add(store, "Backups for a server", "a nightly script with restic", 0)
    photos = add(store, "Moving photos", "how do I copy backups", 1)
    assert find_chat(store, backups) == find_chat(store, f" {backups[:-1]} ") == backups
    assert find_chat(store, "photos MOVING") == photos
    assert find_chat(store, "backups") == backups  # the title goes before the content
    assert find_chat(store, "restic") == backups
    assert ids_from(store, "2") == [photos, backups] and ids_from(store, "photos") == []


@pytest.mark.parametrize("text", ["", "zebra", "99999999", "[b]"])
def test_what_no_chat_holds_is_told(store: ConversationStore, text: str) -> None:
    add(store, "Backups", "restic", 0)
    with pytest.raises(StoreError) as error:
        find_chat(store, text)
    assert str(error.value) == f'No chat holds "{text}"; tui-chat list shows them all.'


@pytest.mark.parametrize("text", ["2", "alpha", "common"])
def test_what_means_more_than_one_chat_is_told(store: ConversationStore, text: str) -> None:
    add(store, "Alpha one", "common", 0)
    add(store, "Alpha two", "common", 1)
    with pytest.raises(StoreError, match="means more than one chat"):
        find_chat(store, text)
