import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store import index
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.search import fold, places, snippet_of, words_of
from tui_chat.types import Message, Role

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk proves nothing here."""
    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", lambda _: None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> ConversationStore:
    return ConversationStore(tmp_path / "data", cache)


def write(store: ConversationStore, *texts: str, title: str = "", minute: int = 0) -> str:
    log = store.create(title=title)
    parent = None
    for number, text in enumerate(texts):
        role = Role.ASSISTANT if number % 2 else Role.USER
        log.append(
            Message(f"m{number}", role, text, START + timedelta(minutes=minute + number), parent)
        )
        parent = f"m{number}"
    log.close()
    return log.id


def found(store: ConversationStore, query: str, **options: bool) -> list[str | None]:
    return [hit.message_id for hit in store.search(query, each=50, **options)]


def index_file(cache: Path) -> Path:
    (path,) = cache.glob("index-*.sqlite3")
    return path


# What is found


@pytest.mark.parametrize(
    ("query", "hit"),
    [
        ("quick", True),
        ("QUICK fox", True),
        ("fox quick", True),  # in any order
        ("ick", True),  # inside a word
        ("qu", True),  # too short for the index
        ("q", True),
        ("quick wolf", False),
        ('"quick', True),  # the text has this quote
        ('quick"', False),
        ('"quick brown"', False),
        ("quick*", False),
        ("-fox", False),
        ("NOT quick", False),
        ("fox OR wolf", False),
        ("content:fox", False),
        ("NEAR(quick fox)", False),
        ("a^2+(b)", True),
        ("%", False),
        ("_", False),
        ("\\o/", True),
        ("🙂", True),
        ("🙂🙃", True),
        ("👩‍🚀", True),
        ("你好", True),
        ("世", True),
        ("你好吗世界", True),
        ("好你", False),
        ("strasse", True),  # straße
        ("STRASSE", True),
        ("Käse", True),
        ("KA\u0308SE", True),  # the accent as a character of its own
        ("ｋäse", True),  # full width
        ("\x00", False),
        ("\ud83d", False),
        ("AND", False),
        ("'; DROP TABLE message; --", False),
    ],
)
def test_every_sign_of_a_query_is_meant_as_it_stands(
    store: ConversationStore, query: str, hit: bool
) -> None:
    write(store, 'The "quick brown fox, a^2+(b) \\o/ 🙂🙃 👩‍🚀 你好吗世界 Straße Käse')
    assert found(store, query) == (["m0"] if hit else [])


ALPHABET = st.sampled_from("abAB \n\"'*:()-^%_äÄßǆΣσς你好🙂\u0308\x00\ud83d\u2028İ")


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=6),
    query=st.text(ALPHABET, min_size=1, max_size=5),
)
def test_the_index_finds_what_comparing_every_text_finds(
    tmp_path_factory: pytest.TempPathFactory, texts: Sequence[str], query: str
) -> None:
    folder = tmp_path_factory.mktemp("data")
    store = ConversationStore(folder, folder / "cache")
    write(store, *texts, title=texts[0])
    words = words_of(query)
    wanted = [n for n, text in enumerate(texts) if words and all(w in fold(text) for w in words)]
    assert [hit for hit in found(store, query) if hit] == [f"m{n}" for n in reversed(wanted)]


@settings(max_examples=200, deadline=None)
@given(st.text(ALPHABET), st.text(ALPHABET, min_size=1, max_size=3), st.text(ALPHABET))
def test_the_snippet_marks_the_hit_and_is_one_line(before: str, word: str, behind: str) -> None:
    text = before + word + behind
    for folded in words_of(word):
        snippet, start, end = snippet_of(text, folded)
        assert "\n" not in snippet and len(snippet) <= 90
        # The place may end inside a character that folds to more than one.
        assert folded in fold(snippet[start:end])


@settings(max_examples=300, deadline=None)
@given(st.text(ALPHABET, max_size=30), st.text(ALPHABET, min_size=1, max_size=4))
def test_all_places_of_all_words_are_marked_and_nothing_else(text: str, query: str) -> None:
    words = words_of(query)
    found = places(text, words)
    flat = [edge for place in found for edge in place]
    assert flat == sorted(flat) and all(start < end for start, end in found)
    for word in words:
        # The words stand in the marked places alone: without these they are gone.
        rest = "\n".join(
            text[end:start]
            for end, start in zip([0, *flat[1::2]], [*flat[::2], len(text)], strict=True)
        )
        assert word not in fold(rest)
    assert all(any(word in fold(text[start:end]) for word in words) for start, end in found)


def test_places_of_words_that_overlap_are_one() -> None:
    assert places("The Straße, the STRASSE", words_of("strasse the")) == [
        (0, 3),
        (4, 10),
        (12, 15),
        (16, 23),
    ]
    assert places("abcd", ["abc", "bcd"]) == [(0, 4)]
    assert places("abcd", []) == []


def test_hits_tell_where_they_are_and_the_last_written_comes_first(
    store: ConversationStore,
) -> None:
    old = write(store, "needle", "a needle in the hay", title="Hay", minute=0)
    new = write(store, "none", "other", "the needle again", title="My needle", minute=9)
    hits = store.search("needle", each=50)
    assert [(h.conversation_id, h.message_id) for h in hits] == [
        (new, None),
        (new, "m2"),
        (old, "m1"),
        (old, "m0"),
    ]
    assert [h.title for h in hits] == ["My needle", "My needle", "Hay", "Hay"]
    assert [h.role for h in hits] == [None, Role.USER, Role.ASSISTANT, Role.USER]
    assert hits[2].created_at == START + timedelta(minutes=1)
    assert hits[2].snippet == "a needle in the hay"
    assert (hits[2].start, hits[2].end) == (2, 8)
    assert [h.message_id for h in store.search("needle")] == [None, "m1"]  # one of each
    assert len(store.search("needle", 3, each=50)) == 3


def test_a_title_made_of_the_prompt_is_not_found_twice(store: ConversationStore) -> None:
    write(store, "what is\na  needle and where do I find one", title="What is a needle…")
    assert found(store, "needle") == ["m0"]


def test_all_branches_are_searched(store: ConversationStore) -> None:
    log = store.create()
    log.append(Message("u1", Role.USER, "question", START))
    log.append(Message("a1", Role.ASSISTANT, "first needle", START, "u1"))
    log.append(Message("a2", Role.ASSISTANT, "second", START, "u1"))
    assert found(store, "needle") == ["a1"]


def test_conversations_are_found_with_the_number_of_their_hits(store: ConversationStore) -> None:
    old = write(store, "needle", "a needle", "none", title="My needle", minute=0)
    new = write(store, "none", "one needle", minute=9)
    named = write(store, "none", title="The needle", minute=20)
    title, first, second = store.search_chats("NEEDLE")
    assert (title.conversation_id, title.count) == (named, 0)
    assert title.last is not None and title.last.message_id is None
    assert [(chat.conversation_id, chat.count) for chat in (first, second)] == [(new, 1), (old, 2)]
    assert first.last is not None and first.last.message_id == "m1"
    assert second.last is not None and second.last.snippet == "a needle"
    assert store.search_chats(" ") == []


def test_archived_conversations_are_named_without_their_hits(store: ConversationStore) -> None:
    hidden = write(store, "needle", minute=5)
    shown = write(store, "needle", minute=0)
    log = store.open(hidden)
    log.flag(archived=True)
    log.close()
    chats = store.search_chats("needle", archived=False)
    assert [(chat.conversation_id, chat.count) for chat in chats] == [(shown, 1), (hidden, 0)]
    assert chats[1].last is None
    assert [chat.count for chat in store.search_chats("needle")] == [1, 1]


def test_the_texts_of_the_hits_in_one_conversation_come_in_their_order(
    store: ConversationStore,
) -> None:
    chat = write(store, "one Needle", "none", "two needles " + "x" * 200, title="My needle")
    write(store, "another needle")
    store.search("needle")
    found_texts = store.found_texts(chat, "needle")
    assert {found.message_id: found.role for found in found_texts} == {
        "m0": Role.USER,
        "m2": Role.USER,
        None: None,
    }
    assert [found.text[:12] for found in found_texts if found.message_id] == [
        "one Needle",
        "two needles ",
    ]
    assert len(store.found_texts(chat, "needle", limit=1)) == 1


# Kept up to date


def test_what_changes_is_found_at_the_next_search(
    store: ConversationStore, tmp_path: Path, cache: Path
) -> None:
    first = write(store, "alpha", "beta")
    other = ConversationStore(tmp_path / "data", cache)
    assert found(other, "beta") == ["m1"]
    log = store.open(first)
    log.begin(Message("r", Role.ASSISTANT, "", START, "m1"))
    log.save_partial("r", "gamma")
    assert found(other, "gamma") == ["r"]
    log.save_partial("r", "gamma delta")
    log.end(Message("r", Role.ASSISTANT, "epsilon", START, "m1"))
    log.rename("Zeta")
    assert found(other, "gamma") == [] and found(other, "epsilon") == ["r"]
    assert found(other, "zeta") == [None]
    log.close()
    store.delete(first)
    assert found(other, "beta") == [] and other.summaries() == []
    assert b"epsilon" not in index_file(cache).read_bytes()  # a deleted chat leaves no text
    store.restore(first)
    assert found(other, "epsilon") == ["r"]


def test_a_search_that_need_not_be_fresh_does_not_look_at_the_folder(
    store: ConversationStore, tmp_path: Path
) -> None:
    assert found(store, "alpha", fresh=False) == []
    write(store, "alpha")
    assert found(store, "alpha", fresh=False) == []
    assert store.summaries(fresh=False) == []
    assert found(store, "alpha") == ["m0"]
    assert len(store.summaries(fresh=False)) == 1


def test_only_what_changed_is_read_again(
    store: ConversationStore, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [write(store, f"text {number}") for number in range(4)]
    store.search("text")
    read: list[str] = []
    real = index.open_regular_file
    monkeypatch.setattr(
        index, "open_regular_file", lambda path: (read.append(path.stem), real(path))[1]
    )
    later = ConversationStore(tmp_path / "data", cache)
    assert len(found(later, "text")) == 4
    assert read == []
    log = later.open(ids[2])
    log.append(Message("x", Role.USER, "more text", START))
    assert len(found(later, "text")) == 5
    assert read == [ids[2]]


@pytest.mark.parametrize("damage", ["gone", "emptied", "noise", "cut", "of another program"])
def test_an_index_that_is_damaged_or_gone_is_made_anew(
    store: ConversationStore, tmp_path: Path, cache: Path, damage: str
) -> None:
    for number in range(30):
        write(store, f"text {number} " + "filler " * 200)
    assert len(found(store, "text")) == 30
    path = index_file(cache)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "noise":
        path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(b"not a database at all " * 500)
    for again in (ConversationStore(tmp_path / "data", cache), store):
        assert len(found(again, "text")) == 30
        assert len(again.summaries()) == 30


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed")
    store = ConversationStore(folder, folder / "cache")
    for number in range(10):
        write(store, f"text {number} " + "filler " * 50, f"reply {number}", title=f"T{number}")
    store.search("text")
    return folder


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=20))
def test_no_damage_of_the_index_makes_a_search_fail(
    indexed: Path, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(index_file(indexed / "cache").read_bytes())
    with tempfile.TemporaryDirectory() as name:
        for place, bits in flips:
            data[place % len(data)] ^= bits
        target = Path(name) / index_file(indexed / "cache").name
        target.write_bytes(data)
        store = ConversationStore(indexed, Path(name))
        store.summaries()
        store.search("text fill")
        store.search("te")
        if not flips:
            assert len(store.search("reply")) == 10


def test_a_query_of_any_length_is_answered(store: ConversationStore) -> None:
    text = " ".join(f"word{number}" for number in range(5000))
    write(store, text)
    assert found(store, text) == ["m0"]
    assert found(store, text + " more") == []
    assert found(store, text.replace(" ", "")) == []


def test_the_index_is_private(store: ConversationStore, cache: Path) -> None:
    before = os.umask(0)
    try:
        write(store, "secret")
        store.search("secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(index_file(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@pytest.mark.parametrize("obstacle", ["a file", "a folder", "a link", "a pipe"])
def test_without_a_cache_folder_the_index_is_kept_in_memory(
    tmp_path: Path, cache: Path, obstacle: str
) -> None:
    store = ConversationStore(tmp_path / "data", cache)
    victim = tmp_path / "victim"
    if obstacle == "a file":
        cache.write_text("here is no folder")
    else:
        write(store, "text")
        store.search("text")
        path = index_file(cache)
        path.unlink()
        match obstacle:
            case "a folder":
                path.mkdir()
            case "a link":
                path.symlink_to(victim)
            case _:
                os.mkfifo(path)
        store = ConversationStore(tmp_path / "data", cache)
    ids = {write(store, "new text")}
    assert {hit.conversation_id for hit in store.search("new text")} == ids
    assert ids <= {summary.id for summary in store.summaries()}
    assert not victim.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_folder_is_no_obstacle(store: ConversationStore, cache: Path) -> None:
    cache.mkdir(mode=0o500)
    write(store, "text")
    assert found(store, "text") == ["m0"]


def test_without_the_trigram_tokenizer_the_texts_are_gone_through(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_TRIGRAMS", "CREATE VIRTUAL TABLE trigram USING no_such_module(x)")
    first = write(store, "some needle here")
    assert found(store, "needle") == ["m0"]
    store.delete(first)
    assert found(store, "needle") == []


# At the same time

_PROGRAM = """
import sys
from pathlib import Path
from tui_chat.store.conversations import ConversationStore
for _ in range(5):
    store = ConversationStore(Path(sys.argv[1]), Path(sys.argv[2]))
    print(len(store.search("text", 1000)), len(store.summaries()))
"""


def test_two_processes_make_one_index(store: ConversationStore, tmp_path: Path) -> None:
    for number in range(150):
        write(store, f"text {number}", minute=number)
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "data"), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output == "150 150\n" * 5
    with sqlite3.connect(index_file(tmp_path / "cache")) as database:
        assert database.execute("SELECT count(*) FROM message").fetchone() == (150,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_threads_search_while_another_writes(store: ConversationStore) -> None:
    write(store, "text")
    failures: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(10):
                assert found(store, "text")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        write(store, f"more text {number}")
    for thread in threads:
        thread.join()
    assert failures == []
