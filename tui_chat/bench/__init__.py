"""Benchmarks that a user and CI can run: `tui-chat bench`."""

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Measure what `argv` names and print a table, or JSON; returns the exit code.

    Raises:
        SystemExit: for --help and arguments that cannot be read.
    """
    from tui_chat.bench.command import main

    return main(argv)
