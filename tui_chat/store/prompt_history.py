"""The prompts that were sent, across restarts. Losing them is a pity, never an error."""

from pathlib import Path

LIMIT = 1000


class PromptHistory:
    """Earlier prompts in the JSONL file at `path`, oldest first in `entries`."""

    entries: list[str]

    def __init__(self, path: Path) -> None:
        raise NotImplementedError

    def add(self, text: str) -> bool:
        """Remember a prompt; blank ones and a repetition of the last are left out.

        Returns:
            Whether it is on disk too.
        """
        raise NotImplementedError

    def previous(self, prefix: str, position: int | None = None) -> int | None:
        """Index of the newest entry before `position` (None: the end) starting with `prefix`."""
        raise NotImplementedError

    def following(self, prefix: str, position: int) -> int | None:
        """Index of the oldest entry after `position` starting with `prefix`; None at the end."""
        raise NotImplementedError
