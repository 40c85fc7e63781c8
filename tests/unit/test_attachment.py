import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.chat.attachment import (
    LIMIT,
    Attachment,
    AttachmentError,
    compose,
    mentioned_paths,
    mentions,
    read_attachment,
    split_attachments,
)


def refused(path: Path | str) -> str:
    with pytest.raises(AttachmentError) as caught:
        read_attachment(str(path))
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_a_file_goes_before_the_text_in_a_fence_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "timer.ini"
    path.write_text("[Timer]\nPersistent=true\n")
    message = compose("Why?", [read_attachment(str(path))])
    assert message == f"File: {path}\n```ini\n[Timer]\nPersistent=true\n```\n\nWhy?"


def test_a_fence_in_the_file_does_not_end_the_block(tmp_path: Path) -> None:
    path = tmp_path / "readme.md"
    path.write_text("```sh\nls\n```\n````\n")
    block = read_attachment(str(path)).block
    assert block.startswith(f"File: {path}\n`````md\n") and block.endswith("\n`````")


def test_a_path_relative_to_the_home_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    assert read_attachment("~/notes.txt").text == "x"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    binary, latin, empty = (tmp_path / name for name in ("a.png", "b.txt", "c.txt"))
    binary.write_bytes(b"\x89PNG\x00\x01")
    latin.write_bytes("größer".encode("latin-1"))
    empty.touch()
    assert "not a text file" in refused(binary)
    assert "UTF-8" in refused(latin)
    assert "empty" in refused(empty)


def test_a_byte_order_mark_is_not_a_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "bom.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert read_attachment(str(path)).text == "hello"


def test_a_folder_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    try:
        assert "folder" in refused(tmp_path)
        assert "no regular file" in refused(tmp_path / "pipe")
        refused(tmp_path / "s")
        refused("/dev/zero")
    finally:
        server.close()


def test_a_file_above_the_limit_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    with path.open("wb") as file:
        file.write(b"text ")
        file.truncate(50 * LIMIT)
    path.write_bytes(b"x" * (LIMIT + 1))
    assert "larger than 2 MB" in refused(path)
    path.write_bytes(b"x" * LIMIT)
    assert read_attachment(str(path)).size == LIMIT


def test_what_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    assert "There is no file" in refused(tmp_path / "none")
    refused("a\x00b")
    refused("x" * 5000)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "cannot be read" in refused(loop)


def test_the_path_of_a_refusal_is_safe_to_show() -> None:
    assert "\x1b" not in refused("evil\x1b]0;x\x07\nname")


def test_only_words_that_begin_with_an_at_sign_are_mentions() -> None:
    found = [mention.path for mention in mentions('@a.txt me@host (@b) x@c @"d e.txt" @')]
    assert found == ["a.txt", "b)", "d e.txt"]


def test_only_paths_that_exist_count_and_punctuation_behind_them_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b c.txt", "odd,"):
        (tmp_path / name).write_text("x")
    text = 'see @a.txt, @"b c.txt" @odd, and (@a.txt) but not @alice or @app.route("/")!'
    assert mentioned_paths(text) == ["a.txt", "b c.txt", "odd,"]


def test_a_quoted_path_that_is_missing_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mentioned_paths('look at @"no such file"') == ["no such file"]


texts = st.text(st.sampled_from("ab`\n ~é"), min_size=1, max_size=40)


@given(st.lists(texts, max_size=3), st.text(st.sampled_from("ab`\n"), max_size=10))
def test_a_message_comes_apart_into_its_files_and_its_text(files: list[str], text: str) -> None:
    attached = [Attachment(f"f{n}.py", body, len(body)) for n, body in enumerate(files)]
    found, rest = split_attachments(compose(text, attached))
    assert [a.path for a in found] == [a.path for a in attached]
    assert [a.text.rstrip("\n") for a in found] == [body.rstrip("\n") for body in files]
    assert rest == text


def test_a_message_without_files_is_all_text() -> None:
    assert split_attachments("File: hello\n```") == ([], "File: hello\n```")
