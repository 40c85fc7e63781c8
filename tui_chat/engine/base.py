"""The contract between a conversation and whatever generates text, and its errors."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tui_chat.types import (
    EngineEvent,
    GenerationSettings,
    LoadProgress,
    MemoryUse,
    Message,
    Precision,
    Rung,
)

OnProgress = Callable[[LoadProgress], None]
PollSettings = Callable[[], GenerationSettings]
"""Gives the settings of the next token: the same object again while nothing has changed."""


class EngineError(Exception):
    """Something went wrong in an engine; `str()` is one sentence that a user can act on."""


class LoadError(EngineError):
    """The model could not be loaded."""


class LoadCancelled(EngineError):
    """The load was cancelled on request."""


class Engine(Protocol):
    """Messages in, reply events out. One reply at a time; the engine holds a lock."""

    name: str
    """Short name of the model for the screen."""
    revision: str
    """Commit of the model on the hub; empty for a folder and for the scripted engine."""
    context_window: int
    """Tokens that prompt and reply may have together."""
    tokenizer_id: str
    """Names the tokenizer and chat template; counts are cached under it."""
    device: str
    """`cpu`, `cuda:0`, `mps`; `echo` for the scripted engine, `server:NAME` for a server."""
    dtype: str
    """Type of the weights that are computed with: `bfloat16`, `float32`; may be empty."""
    rungs: tuple[Rung, ...]
    """The steps of the loading ladder in the order they were tried."""
    notes: tuple[str, ...]
    """What the user should know about this model: no chat template, a folded system role."""
    counts_here: bool
    """Whether counting asks nobody outside this process, who may take long to answer."""

    @property
    def exact_counts(self) -> bool:
        """Whether `count_tokens` is exact or an estimate; a server's may turn out to be one."""
        ...

    @property
    def precision(self) -> Precision | None:
        """How the weights are held; None for a server, which does not tell."""
        ...

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Length of the prompt that `stream` would render `messages` to.

        `thinking` is that of the settings it would get. Safe to call from any thread, also while
        a reply is being generated.

        Raises:
            EngineError: these messages cannot be sent: the chat template refuses them, or they
                end with a reply that this engine cannot continue.
        """
        ...

    def count_cached(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """How many tokens of that prompt need not be read again, from the cache as it is now.

        Safe to call from any thread; while a reply is being generated it is a moment's figure.
        """
        ...

    def can_take_back(self, tokens: int) -> bool:
        """Whether a prompt and its reply of `tokens` together can leave the cache again.

        Then what a prompt before shares with one behind is not read again for those between.
        """
        ...

    def count_message(self, message: Message) -> int:
        """What one message adds to a prompt; cached, so a repeated call costs nothing.

        The sum over a conversation may differ from `count_tokens` by what the template puts
        around the conversation as a whole; `count_tokens` has the last word.
        """
        ...

    def stream(
        self,
        messages: Sequence[Message],
        settings: PollSettings,
        cancel: threading.Event,
    ) -> Iterator[EngineEvent]:
        """Generate the reply to `messages`.

        Args:
            messages: what is sent, oldest first, ending with a user message, or with an
                assistant message that is to be continued: its turn is left open, and the reply
                goes on behind the last token of its `content`, or of its `reasoning` where it has
                no content yet. The prompt is that of the messages before it and then this text.
            settings: asked before each token, so that they can change from one token to the
                next without a new prefill; None values are taken from the model's generation
                config. `max_new_tokens`, `seed` and `stop_strings` are those of the first
                answer. A server is told once: all are those of the first answer.
            cancel: when set, generation ends within one token or one prefill chunk.

        Yields:
            `PrefillProgress`, then one `TextDelta` per token that completed some text, then
            exactly one `GenerationFinished`, also after an error or a cancel. Text before an
            error has been yielded by then. An `EngineNotice` may come anywhere before the end.
            Never raises for a fault of generation.
        """
        ...

    def memory(self) -> MemoryUse | None:
        """Memory of the device right now, or None where it cannot be told."""
        ...

    def close(self) -> None:
        """Free the weights and the cache. The engine must not be used afterwards."""
        ...
