"""Where our files live, and the three ways they are written: atomic, append, lock."""

import contextlib
import os
import tempfile
from pathlib import Path

import platformdirs

_APP = "tui-chat"


def _dir(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def config_dir() -> Path:
    """Folder of config.toml and of the user's themes (`TUI_CHAT_CONFIG_DIR`)."""
    return _dir("TUI_CHAT_CONFIG_DIR", platformdirs.user_config_dir(_APP, appauthor=False))


def data_dir() -> Path:
    """Folder of the conversations and the prompt history (`TUI_CHAT_DATA_DIR`)."""
    return _dir("TUI_CHAT_DATA_DIR", platformdirs.user_data_dir(_APP, appauthor=False))


def conversations_dir(data: Path | None = None) -> Path:
    """Folder of the conversation files inside the data folder `data` (default: `data_dir()`)."""
    return (data or data_dir()) / "conversations"


def cache_dir() -> Path:
    """Folder of what can be computed again (`TUI_CHAT_CACHE_DIR`)."""
    return _dir("TUI_CHAT_CACHE_DIR", platformdirs.user_cache_dir(_APP, appauthor=False))


def log_path() -> Path:
    """The log file (`TUI_CHAT_LOG_DIR`)."""
    folder = _dir("TUI_CHAT_LOG_DIR", platformdirs.user_log_dir(_APP, appauthor=False))
    return folder / "tui-chat.log"


def config_path() -> Path:
    """The config file."""
    return config_dir() / "config.toml"


def make_private_dir(path: Path) -> None:
    """Create `path` and its parents, readable by the owner alone where we create it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def atomic_write(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in one step: after a crash it is old or new.

    Raises:
        OSError: the file is as it was.
    """
    make_private_dir(path.parent)
    target = path.resolve()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
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
