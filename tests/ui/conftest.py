"""The real app over real files, with the scripted engine in place of a model."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tui_chat.config import Config, LoadedConfig, Resume
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine, OnProgress
from tui_chat.types import ModelSpec, ServerSpec
from tui_chat.ui.app import TuiChat

REPLY = """\
Two habits matter:

- dump the **database** first
- keep `the password` elsewhere

| tool | encrypts |
|---|---|
| restic | yes |

```python
print("first block")
```

That is all.
"""


@pytest.fixture(autouse=True)
def true_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests look the same wherever they run."""
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "TMUX", "SSH_TTY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_action_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The app tells of an action or a task that raises and goes on; a test shall not go on."""
    yield
    assert "an action failed" not in caplog.text
    assert "a task of the screen failed" not in caplog.text


MakeApp = Callable[..., TuiChat]


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    """Builds the app on `tmp_path`; the model repeats `reply` at `rate` tokens per second.

    With `gate` the model is not ready before the event is set.
    """

    def make(
        *,
        reply: str = REPLY,
        rate: float = 0.0,
        config: Config | None = None,
        gate: threading.Event | None = None,
        model: str | None = None,
        resume: Resume | None = None,
        server: ServerSpec | None = None,
    ) -> TuiChat:
        script = tmp_path / "reply.md"
        script.write_text(reply, encoding="utf-8")

        def open_gated(
            spec: ModelSpec,
            report: OnProgress,
            cancel: threading.Event,
            make_room: Callable[[], None],
        ) -> Engine:
            if gate is not None:
                gate.wait()
            return open_engine(spec, report, cancel, make_room)

        return TuiChat(
            loaded=LoadedConfig(config or Config(), tmp_path / "config.toml"),
            spec=ModelSpec(model or f"echo:{script}", server=server, echo_rate=rate),
            data_dir=tmp_path,
            open_engine=open_gated,
            resume=resume,
        )

    return make
