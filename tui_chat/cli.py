"""Reads the command line and picks the front end; imports neither Textual nor torch itself."""

import argparse
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

from tui_chat import files
from tui_chat.arguments import USAGE, make_parser, options_of
from tui_chat.chat.sanitize import sanitize
from tui_chat.config import Options, to_toml
from tui_chat.log_file import start_log
from tui_chat.output import OutputError, UsageError, complain
from tui_chat.presets import PresetError, all_presets, effective_config, preset_names, presets_dir

INTERRUPTED = 130
BROKEN_PIPE = 141
SWITCH_SECONDS = 0.0002
FRAMES_PER_SECOND = "120"


def main(argv: Sequence[str] | None = None) -> int:
    """Run tui-chat with the arguments `argv` (default: those of the process).

    Returns the exit code: 0 all went well, 1 something failed or a search found nothing, 2 wrong
    usage, 130 stopped with Ctrl+C, 141 the reader of standard output went away.

    Raises:
        SystemExit: for --help, --version and arguments that cannot be read.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with contextlib.suppress(AttributeError):
        # A lone surrogate in a reply must not end the program.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except PresetError as error:
        return _fail(str(error), USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except Exception:
        # A traceback on the terminal would show what users wrote, where a message repeats it.
        start_log()
        logging.getLogger(__name__).exception("something failed that nobody foresaw")
        return _fail(f"Something failed; the log has the details: {files.log_path()}", 1)


def _discard_output() -> None:
    """Python flushes standard output once more at exit; let that go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str, code: int) -> int:
    """Say in one line what is wrong."""
    complain(sentence)
    return code


def _run(argv: Sequence[str]) -> int:
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    options = options_of(args)
    if options.resume and (options.system is not None or options.preset is not None):
        parser.error("--system and --preset are for a new chat, not for --continue or --resume")
    if args.command == "bench":
        if options != Options():
            parser.error("the flags of bench are written after it: tui-chat bench --model NAME")
        from tui_chat.bench import run

        return run(rest)
    if rest:
        parser.error(f"there is no argument {rest[0]}")
    if args.help_keys:
        return _print_keys(options)
    if args.command == "config":
        return _print_config(options)
    if args.command == "ask":
        return _ask(args, options, parser)
    if args.command is not None:
        return _archive(args, options)
    if sentence := _why_no_screen():
        return _fail(sentence, USAGE)
    # Screen and engine share the interpreter: each takes a turn sooner than after the usual 5 ms.
    sys.setswitchinterval(SWITCH_SECONDS)
    # The frame of a key may come just after another one, and waits for the next turn of the screen.
    os.environ.setdefault("TEXTUAL_FPS", FRAMES_PER_SECOND)
    gc.disable()  # until the first frame: nothing that is imported becomes garbage
    # Until the app catches it, there is nothing to save and Ctrl+C just ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tui_chat.ui.lifeguard import Lifeguard

    lifeguard = Lifeguard()
    lifeguard.start()  # before anything starts a thread
    from tui_chat.ui.app import run_app

    return run_app(options, lifeguard)


def _archive(args: argparse.Namespace, options: Options) -> int:
    from tui_chat import archive
    from tui_chat.store.conversations import ConversationStore, StoreError

    store = ConversationStore(options.data_dir or files.data_dir())
    try:
        match args.command:
            case "list":
                return archive.run_list(
                    store,
                    args.limit,
                    pinned=True if args.pinned else None,
                    archived=None if args.all or args.pinned else args.archived,
                    as_json=args.as_json,
                )
            case "show":
                return archive.run_show(store, args.id, as_json=args.as_json)
            case "search":
                words = " ".join(args.words)
                return archive.run_search(store, words, args.limit, as_json=args.as_json)
            case "export":
                return archive.run_export(store, args.id, args.format, args.output)
            case _:
                return archive.run_import(store, args.files)
    except UsageError as error:
        return _fail(str(error), USAGE)
    except StoreError as error:
        return _fail(str(error), 1)
    except OutputError as error:
        _discard_output()
        return _fail(str(error), 1)


def _ask(args: argparse.Namespace, options: Options, parser: argparse.ArgumentParser) -> int:
    from tui_chat.headless import Ask, run_ask

    if args.dump_ids and not args.as_json:
        parser.error("--dump-ids adds to the JSON objects: give --json as well")
    ask = Ask(
        question=" ".join(args.question),
        turns=args.turns,
        as_json=args.as_json,
        dump_ids=args.dump_ids,
        greedy=args.greedy,
        save=args.save,
    )
    try:
        return run_ask(ask, options)
    except UsageError as error:
        return _fail(str(error), USAGE)
    except OutputError as error:
        _discard_output()
        return _fail(str(error), 1)


def _why_no_screen() -> str:
    """Why the screen cannot be drawn here, in one sentence; empty when it can."""
    if sys.stdin is None or not sys.stdin.isatty():
        return 'The keyboard is not a terminal; use tui-chat ask "…" in pipes and scripts.'
    # Textual draws on the real standard error.
    if sys.__stderr__ is None or not sys.__stderr__.isatty():
        return (
            'Standard error is not a terminal, and the screen is drawn there; use tui-chat ask "…".'
        )
    if os.environ.get("TERM") == "dumb":
        return 'This terminal cannot draw a screen (TERM=dumb); use tui-chat ask "…".'
    return ""


def _print(text: str) -> None:
    """Print text that may hold foreign parts: as it is to a pipe, made safe for a terminal."""
    print(sanitize(text) if sys.stdout.isatty() else text, end="")


def _print_keys(options: Options) -> int:
    from tui_chat.ui.commands import key_table
    from tui_chat.ui.keymap import apply_keymap

    actions, problems = apply_keymap(effective_config(options).config.keymap)
    _print(key_table(actions))
    for problem in problems:
        complain(problem)
    return 0


def _problems_of_themes() -> tuple[str, ...]:
    """One sentence for each of the user's theme files that cannot be used."""
    paths = files.toml_names(files.themes_dir())
    if not paths:  # and then Textual is not needed
        return ()
    from tui_chat.ui.theme_proof import proven_themes

    return proven_themes(paths)[1]


def _print_config(options: Options) -> int:
    from tui_chat.ui.keymap import apply_keymap

    loaded = effective_config(options)
    config = loaded.config
    problems = [*loaded.problems, *apply_keymap(config.keymap)[1], *all_presets()[1]]
    problems += _problems_of_themes()
    lines = [
        f"config file: {loaded.path}{'' if loaded.path.exists() else ' (not there yet)'}",
        f"presets: {', '.join(preset_names()) or 'none'}, in {presets_dir()}",
        f"data folder: {options.data_dir or files.data_dir()}",
        f"log file: {files.log_path()}",
        *(f"problem: {problem}" for problem in dict.fromkeys(problems)),
    ]
    comments = "".join(f"# {part}\n" for line in lines for part in line.splitlines())
    _print(f"{comments}\n{to_toml(config)}")
    return 0
