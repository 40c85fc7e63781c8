"""The arguments of the command line: flags, commands, and what `Options` they make."""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tui_chat import __version__, servers
from tui_chat.chat.sanitize import sanitize
from tui_chat.config import Options, Resume
from tui_chat.types import Mode, Precision

USAGE = 2

_DESCRIPTION = "A full-screen terminal chat with a language model, in this process or on a server."
_EPILOG = """\
examples:
  tui-chat                                   chat with the built-in guide
  tui-chat --model ~/models/Qwen3-4B         chat with a model from a folder
  tui-chat --server http://gpu-box:8000      chat with a model on a server
  tui-chat ask "Why is the sky blue?"        print one answer
  git diff | tui-chat ask "Review this."     ask about what is piped in

exit codes: 0 all went well, 1 something failed or a search found nothing, 2 wrong usage,
130 stopped with Ctrl+C
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"tui-chat: {sanitize(message)} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Prints the versions that a bug report needs; reads metadata, imports none of them."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib import metadata

        lines = [f"tui-chat {__version__}", f"Python {platform.python_version()}"]
        for name in ("torch", "transformers", "textual"):
            try:
                lines.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                lines.append(f"{name} is not installed")
        print("\n".join(lines))
        parser.exit()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f'"{text}" is not a whole number from {low} to {high:,}'
            )
        return value

    return read


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f'"{text}" is not a rate in tokens per second, 0 or more')
    return value


def _model(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name of the model is empty")
    return _server(text) if "://" in text else text


def _server(text: str) -> str:
    if servers.looks_like_address(text):
        try:
            servers.address(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    elif not servers.is_name(text):
        raise argparse.ArgumentTypeError("it is neither the name of a server nor an address")
    return text


def _config_file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"the config file {path} does not exist")
    return path


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return path


def _shared_flags() -> _Parser:
    """The flags that the screen and `ask` have in common, before or after the command."""
    # SUPPRESS: the flag of a subcommand must not reset the one that stood before it.
    shared = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("model and reply (in place of what the config file says)")
    group.add_argument(
        "--model",
        type=_model,
        metavar="NAME",
        help="guide (built in), a folder, a Hugging Face hub name, server:NAME/MODEL, or "
        "echo:PATH, which streams the text of a file as every reply",
    )
    group.add_argument(
        "--server",
        type=_server,
        metavar="URL",
        help="a server in place of a model in this process, by its address or the name of its "
        "table [servers.NAME] in the config file; --model then names its model",
    )
    group.add_argument("--device", type=_model, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--precision",
        choices=["auto", *map(str, Precision)],
        help="how to hold the weights; auto takes the first of the others that works",
    )
    group.add_argument("--mode", choices=[str(mode) for mode in Mode], help="generation settings")
    group.add_argument(
        "--max-new-tokens", type=_whole(1, 1_000_000), metavar="N", help="limit for each reply"
    )
    group.add_argument("--system", metavar="TEXT", help="the system prompt")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="begin with presets/NAME.toml of the config folder; none for none",
    )
    group.add_argument(
        "--seed", type=_whole(0, 2**63 - 1), metavar="N", help="makes sampling repeatable"
    )
    group.add_argument(
        "--context",
        type=_whole(64, 100_000_000),
        metavar="N",
        help="upper limit for the context window in tokens",
    )
    group.add_argument(
        "--context-budget",
        type=_whole(64, 100_000_000),
        metavar="N",
        help="tokens that a prompt may have; the oldest turns beyond them are not sent",
    )
    group.add_argument(
        "--reserved-tokens",
        type=_whole(1, 1_000_000),
        metavar="N",
        help="room in the context window that is kept for the reply (512)",
    )
    group.add_argument(
        "--echo-rate",
        type=_rate,
        metavar="RATE",
        help="tokens per second of echo:PATH; 0, the default, is as fast as possible",
    )
    group = shared.add_argument_group("files")
    group.add_argument("--config", type=_config_file, metavar="FILE", help="another config file")
    _add_data_dir(group)
    return shared


def _add_resume(to: argparse.ArgumentParser, help_text: str, **resume: Any) -> None:
    """The flags that go on with a stored conversation; `resume` says how --resume is read."""
    which = to.add_mutually_exclusive_group()
    which.add_argument(
        "--continue",
        action="store_true",
        default=argparse.SUPPRESS,
        dest="continue_last",
        help="go on with the chat that was used last",
    )
    which.add_argument("--resume", default=argparse.SUPPRESS, help=help_text, **resume)


def _add_data_dir(to: argparse._ActionsContainer) -> None:
    to.add_argument(
        "--data-dir", type=_folder, metavar="FOLDER", help="another folder for the conversations"
    )


def make_parser() -> argparse.ArgumentParser:
    """The parser of all flags and commands; its errors are one sentence and exit code 2."""
    shared = _shared_flags()
    parser = _Parser(
        prog="tui-chat",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        parents=[shared],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_resume(
        parser,
        "open the list of chats, with WORDS searched; an ID, or its beginning, opens that chat",
        nargs="?",
        const="",
        metavar="ID or WORDS",
    )
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument(
        "--ssh",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="send little to a terminal that is far away (found out by itself over SSH)",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print versions and exit")
    parser.add_argument("--help-keys", action="store_true", help="print all keys and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_ask(commands.add_parser, shared)
    commands.add_parser(
        "config",
        parents=[shared],
        allow_abbrev=False,
        help="print where the files are, and the settings in effect",
        description="Prints where the files are, what is wrong with the config file, and all "
        "settings in effect. The output is itself a valid config file.",
    )
    _add_archive(commands.add_parser)
    commands.add_parser("bench", add_help=False, help="measure the speed on this machine")
    return parser


def _add_ask(add_parser: Callable[..., _Parser], shared: _Parser) -> None:
    ask = add_parser(
        "ask",
        parents=[shared],
        allow_abbrev=False,
        help="print the answer to one question, without a screen",
        description="Prints the answer to one question as it is written. What is piped in is "
        "put before the question as context; alone it is the question.",
        epilog="Standard input is read to its end unless it is a terminal; a script that leaves "
        "it open should add </dev/null. Ctrl+C stops the reply and prints what there is.",
    )
    ask.add_argument("question", nargs="*", metavar="QUESTION", help="the words of the question")
    ask.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="print one JSON object with the text, finish_reason and all figures; "
        "with --turns one object a line, one line a turn",
    )
    ask.add_argument(
        "--turns",
        type=Path,
        metavar="FILE",
        help="hold one conversation over the non-empty lines of FILE",
    )
    ask.add_argument(
        "--dump-ids", action="store_true", help="add prompt_ids and new_ids to the JSON objects"
    )
    ask.add_argument(
        "--greedy",
        action="store_true",
        help="always the likeliest token: no sampling, no penalties",
    )
    _add_resume(
        ask,
        "go on with the chat with this id, or the only one with these words",
        metavar="ID or WORDS",
    )
    ask.add_argument(
        "--save", action="store_true", help="keep the conversation among those of the screen"
    )


def _add_archive(add_parser: Callable[..., _Parser]) -> None:
    def add(name: str, text: str) -> _Parser:
        command = add_parser(
            name,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
        )
        _add_data_dir(command)
        return command

    def add_json(command: _Parser, text: str) -> None:
        command.add_argument(
            "--json", action="store_true", dest="as_json", default=False, help=text
        )

    limit = _whole(1, 1_000_000_000)
    command = add("list", "list the conversations, last used first")
    add_json(command, "print one JSON object a line")
    command.add_argument("--limit", type=limit, default=None, metavar="N", help="the first N only")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--pinned", action="store_true", default=False, help="pinned ones only")
    which.add_argument("--archived", action="store_true", default=False, help="archived ones only")
    which.add_argument("--all", action="store_true", default=False, help="archived ones as well")

    command = add("show", "print a conversation as Markdown")
    command.add_argument("id", metavar="ID", help="an id, or how it begins")
    add_json(command, "print one JSON object with all branches and figures")

    command = add("search", "find words in titles and messages, last written first")
    command.add_argument(
        "words",
        nargs="+",
        metavar="WORDS",
        help="all of them must occur, also inside other words; no sign has a special meaning",
    )
    add_json(command, "print one JSON object a line")
    command.add_argument(
        "--limit", type=limit, default=50, metavar="N", help="print at most N hits (50)"
    )

    command = add("export", "write conversations for other programs")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", default=None, metavar="ID", help="an id, or how it begins")
    which.add_argument("--all", action="store_true", default=False, help="all conversations")
    command.add_argument(
        "--format",
        choices=["markdown", "json", "openai", "sharegpt"],
        default="markdown",
        help="json alone has all branches and figures; the others have the open branch",
    )
    command.add_argument(
        "-o",
        default=None,
        dest="output",
        metavar="PATH",
        help="a file, or a folder that gets a file for each conversation",
    )

    command = add("import", "take over conversations from other programs, as new ones")
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="conversations.json of ChatGPT, OpenAI messages, ShareGPT, or our own files",
    )


def options_of(args: argparse.Namespace) -> Options:
    """What the flags say, in the form that the front ends take."""
    given = vars(args)
    mode = given.get("mode")
    resume = Resume(given["resume"]) if given.get("resume") is not None else None
    return Options(
        model=given.get("model"),
        server=given.get("server"),
        device=given.get("device"),
        precision=given.get("precision"),
        mode=Mode(mode) if mode else None,
        max_new_tokens=given.get("max_new_tokens"),
        system=given.get("system"),
        preset=given.get("preset"),
        seed=given.get("seed"),
        context=given.get("context"),
        context_budget=given.get("context_budget"),
        reserved_tokens=given.get("reserved_tokens"),
        config=given.get("config"),
        data_dir=given.get("data_dir"),
        echo_rate=given.get("echo_rate", 0.0),
        mouse=False if args.no_mouse else None,
        resume=Resume(None) if given.get("continue_last") else resume,
        ssh=args.ssh,
    )
