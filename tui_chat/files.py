"""Where our files live, and the three ways they are written: atomic, append, lock."""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

import platformdirs

MOST_BYTES = 16 * 1024 * 1024
"""Of a file that people write by hand; one that has more is not what it should be."""
_APP = "tui-chat"
_logger = logging.getLogger(__name__)


def _dir(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def config_dir() -> Path:
    """Folder of config.toml and of the user's themes (`TUI_CHAT_CONFIG_DIR`)."""
    return _dir("TUI_CHAT_CONFIG_DIR", platformdirs.user_config_dir(_APP, appauthor=False))


def data_dir() -> Path:
    """Folder of the conversations and the prompt history (`TUI_CHAT_DATA_DIR`)."""
    return _dir("TUI_CHAT_DATA_DIR", platformdirs.user_data_dir(_APP, appauthor=False))


def cache_dir() -> Path:
    """Folder of what can be computed again (`TUI_CHAT_CACHE_DIR`)."""
    return _dir("TUI_CHAT_CACHE_DIR", platformdirs.user_cache_dir(_APP, appauthor=False))


def themes_dir() -> Path:
    """Folder of the user's themes."""
    return config_dir() / "themes"


def toml_names(folder: Path) -> list[Path]:
    """All that is called NAME.toml in `folder`, in order; it may be anything."""
    with contextlib.suppress(OSError):  # there may be something else in its place
        return sorted(folder.glob("*.toml"))
    return []


def log_path() -> Path:
    """The log file (`TUI_CHAT_LOG_DIR`)."""
    folder = _dir("TUI_CHAT_LOG_DIR", platformdirs.user_log_dir(_APP, appauthor=False))
    return folder / "tui-chat.log"


def config_path() -> Path:
    """The config file."""
    return config_dir() / "config.toml"


def make_private_dir(path: Path) -> None:
    """Create `path` and its parents, readable by the owner alone where we create it."""
    if not path.parent.exists():  # mkdir(parents=True) would create these with the umask alone
        make_private_dir(path.parent)
    if not path.is_dir():
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)  # the umask may have taken what the owner needs


def atomic_write(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in one step: after a crash it is old or new.

    Raises:
        OSError: the file is as it was, or what is there is no file.
    """
    make_private_dir(path.parent)
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_dir(target.parent)


def sync_dir(path: Path) -> None:
    """Make a new or renamed name in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_file(source: Path, target: Path) -> None:
    """Rename a file; one that is at `target` already gets a number instead of being lost.

    Raises:
        OSError: `source` is where it was.
    """
    number = 1
    while os.path.lexists(older := target.with_name(f"{target.stem}.{number}{target.suffix}")):
        number += 1
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, older)
    os.rename(source, target)


class LockedError(OSError):
    """Another process, or another part of this one, has the file open for writing."""


class AppendLog:
    """A file of lines that only grows, and that one process at a time may write.

    A line is written by one `write`, so that a crash tears at most the last line; the next line
    then starts on a new one. Not thread-safe: the caller orders its threads.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open and lock an existing file, or with `create` one that must not exist yet.

        Raises:
            LockedError: the file is locked.
            OSError: it cannot be opened, is no regular file, or exists already.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        self.path = path
        self._descriptor = os.open(path, flags, 0o600)
        try:
            require_regular_file(self._descriptor, path)
            _lock(self._descriptor, path)
            if create:
                os.fchmod(self._descriptor, 0o600)
                sync_dir(path.parent)
            self._size = os.fstat(self._descriptor).st_size
        except BaseException:
            os.close(self._descriptor)
            if create:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def append(self, data: bytes, *, durable: bool) -> None:
        """Write `data`, whole lines; with `durable` it survives a power cut.

        Raises:
            OSError: nothing of `data` is in the file, unless the disk refused that as well.
        """
        start = os.fstat(self._descriptor).st_size
        if start and os.pread(self._descriptor, 1, start - 1) != b"\n":
            data = b"\n" + data
        try:
            if os.write(self._descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if durable:
                _sync_data(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
            raise
        self._size = start + len(data)

    def read(self) -> bytes:
        """All that is in the file, also when its name is gone."""
        parts = []
        offset = 0
        while part := os.pread(self._descriptor, 1 << 24, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def is_in_place(self) -> bool:
        """Whether `path` still names the file that is open here."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    def is_file(self, descriptor: int) -> bool:
        """Whether the open file `descriptor` is this file."""
        return os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor))

    def has_shrunk(self) -> bool:
        """Whether somebody else took away something that was written or found here."""
        return os.fstat(self._descriptor).st_size < self._size

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._descriptor)


def open_regular_file(path: Path) -> BinaryIO:
    """Open a file that may be anything: neither follows a link nor waits on a pipe.

    Raises:
        OSError: it cannot be opened or is no regular file.
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: Path, flags: int = os.O_RDONLY | os.O_NOFOLLOW) -> int:
    """The same as a descriptor, which the caller closes; one that `flags` make is private.

    Raises:
        OSError: it cannot be opened or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        require_regular_file(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Path, limit: int = MOST_BYTES) -> bytes:
    """All of a file that others wrote, through links; a pipe or a device is not waited for.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `limit` bytes.
    """
    with os.fdopen(open_descriptor(path, os.O_RDONLY), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def require_regular_file(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(errno.EWOULDBLOCK, "in use elsewhere", str(path)) from error
    except OSError as error:  # some network file systems have no locks; writing still works there
        _logger.warning("%s cannot be locked: %s", path, error)


def _sync_data(descriptor: int) -> None:
    if hasattr(os, "fdatasync"):  # not on macOS
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
