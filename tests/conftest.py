"""What every test shares: no test sees the user's files or the network."""

import os
from pathlib import Path

import pytest

# Read by the hub's library when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the config, data, cache and log of each test."""
    folder = tmp_path / "home"
    for name in ("CONFIG", "DATA", "CACHE", "LOG"):
        monkeypatch.setenv(f"TUI_CHAT_{name}_DIR", str(folder / name.lower()))
    return folder
