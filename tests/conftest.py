"""What every test shares: no test sees the user's files or the network."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says nothing on a machine that is shared.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")

# Read by the hub's library when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

CRASHED = "the screen failed"
"""What the log says of a screen that a fault has ended."""
LOG_SHOWN = 8_000
"""So many characters of a log are shown, its end."""


@pytest.fixture(autouse=True)
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A folder of its own for the config, data, cache and log of each test.

    A program may end at a fault after the test has seen all it waits for: its log tells.
    """
    folder = tmp_path / "home"
    for name in ("CONFIG", "DATA", "CACHE", "LOG"):
        monkeypatch.setenv(f"TUI_CHAT_{name}_DIR", str(folder / name.lower()))
    yield folder
    text = log_of(folder)
    if CRASHED in text and request.node.get_closest_marker("crashes") is None:
        pytest.fail(f"a program ended at a fault:\n{text[-LOG_SHOWN:]}")


def log_of(folder: Path) -> str:
    """What the programs of a test have logged; some tests put what never ends in its place."""
    path = folder / "log" / "tui-chat.log"
    try:
        is_log = path.is_file() and not path.is_symlink()
        return path.read_text(encoding="utf-8", errors="replace") if is_log else ""
    except OSError:
        return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of the programs that a failed test has run: its folder may be gone soon."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("home")
    if report.when == "call" and report.failed and folder is not None and (text := log_of(folder)):
        report.sections.append(("log of the program", text[-LOG_SHOWN:]))
    return report
