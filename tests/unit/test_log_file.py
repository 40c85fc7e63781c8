import asyncio
import gc
import logging
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui_chat import files, log_file

SECRET = "sk-4711"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = threading.excepthook, sys.unraisablehook
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


def logged() -> str:
    return files.log_path().read_text(encoding="utf-8")


def fail(api_key: str = SECRET) -> None:
    try:
        {}[api_key]
    except KeyError as error:
        raise ValueError(f"not with {api_key}") from error


def in_a_thread() -> None:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def in_a_destructor() -> None:
    class Failing:
        def __del__(self) -> None:
            fail()

    del (x := [Failing()])[0], x


def in_a_task() -> None:
    async def failing() -> None:
        fail()

    async def main() -> None:
        task = asyncio.create_task(failing())
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(main())


def in_a_handler() -> None:
    try:
        fail()
    except ValueError:
        logging.getLogger("x").exception("it failed")


@pytest.mark.parametrize("where", [in_a_thread, in_a_destructor, in_a_task, in_a_handler])
def test_a_failure_is_told_with_types_and_places_but_no_value(where: object) -> None:
    assert callable(where)
    log_file.start_log()
    where()
    text = logged()
    assert SECRET not in text and "not with" not in text
    assert "KeyError" in text and "ValueError" in text
    assert "in fail" in text and "which caused" in text


def test_the_reason_of_the_system_is_told_without_the_name_of_the_file() -> None:
    log_file.start_log()
    try:
        (Path("/no") / SECRET).read_text()
    except OSError:
        logging.getLogger("x").exception("it failed")
    assert "FileNotFoundError (No such file or directory)" in logged()
    assert SECRET not in logged()


def test_no_line_of_the_log_controls_the_terminal_that_shows_it() -> None:
    log_file.start_log()
    logging.getLogger("x").warning("%s", "\x1b]0;t\x07 \x9b31m \ud800 \u202e")
    text = logged()
    assert not set(text) & set("\x1b\x07\x9b\u202e") and "␛]0;t␇" in text


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_every_log_file_is_private_also_after_it_was_begun_anew(umask: int) -> None:
    path = files.log_path()
    path.parent.mkdir(parents=True)
    path.write_text("older\n")
    path.chmod(0o644)
    before = os.umask(umask)
    try:
        log_file.start_log()
        for _ in range(3):
            logging.getLogger("x").warning("x" * 600_000)
    finally:
        os.umask(before)
    found = sorted(path.parent.iterdir())
    assert [each.name for each in found] == ["tui-chat.log", "tui-chat.log.1"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in found} == {0o600}


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "loop", "endless", "no folder"])
def test_where_no_log_can_be_written_the_program_goes_on(kind: str, tmp_path: Path) -> None:
    path = files.log_path()
    if kind == "no folder":
        path.parent.parent.mkdir(parents=True)
        path.parent.write_text("")
    else:
        path.parent.mkdir(parents=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "loop":
            path.symlink_to(path)
        case "endless":
            path.symlink_to("/dev/zero")
    log_file.start_log()
    logging.getLogger("x").warning("told to nobody")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    log_file.start_log()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    descriptor = handler.stream.fileno()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    logging.getLogger("x").warning(SECRET)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)  # what is left in its buffer can be written
    for each in (full, nowhere):
        os.close(each)
    assert capfd.readouterr() == ("", "")
