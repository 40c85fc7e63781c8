"""The command line of `tui-chat bench`: which rows, how often, as a table or as JSON."""

import argparse
import contextlib
import dataclasses
import importlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from tui_chat.bench.harness import (
    BenchError,
    Report,
    Row,
    Setup,
    as_json,
    as_table,
    describe_machine,
)

USAGE = 2
SHAPES = ("0.5b", "30m")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One name that the command line takes, and the function `(setup, report)` behind it."""

    name: str
    module: str
    help: str
    by_default: bool = True
    function: str = "measure"

    def measure(self, setup: Setup, report: Report) -> Iterator[Row]:
        """Run it; its module is imported only now.

        Raises:
            BenchError: something that it needs is missing or failed.
        """
        module = importlib.import_module(f"tui_chat.bench.{self.module}")
        measure: Callable[[Setup, Report], Iterator[Row]] = getattr(module, self.function)
        return measure(setup, report)


def _host(name: str, function: str, help: str) -> Benchmark:  # noqa: A002
    return Benchmark(name, "host", help, function=function)


def _generation(name: str, function: str, help: str) -> Benchmark:  # noqa: A002
    return Benchmark(name, "generation", help, function=function)


BENCHMARKS: tuple[Benchmark, ...] = (
    _host("trim", "measure_trim", "200 messages to a budget"),
    _host("count", "measure_count", "the tokens of 200 messages after one new one"),
    Benchmark("keystroke", "keystroke", "a letter more in a draft behind 3,500 tokens"),
    _host("build-prompt", "measure_build", "the prompt of turn 50"),
    _host("tokenize", "measure_tokenize", "the token ids of turn 50"),
    _host("sample", "measure_sample", "a token by top-p from a vocabulary of 152,000"),
    _host("clean", "measure_clean", "a reply of 4 kB while it streams"),
    _generation("decode-speed", "measure_decode", "tokens per second, against generate"),
    _generation("decode-accuracy", "measure_decode", "the same in accuracy mode"),
    _generation("mode", "measure_decode", "accuracy mode, against speed without speculation"),
    _generation("speculation", "measure_speculation", "speed mode, against it without speculation"),
    _generation(
        "ttft", "measure_ttft", "the first token at turns 2, 5 and 10, against a full prefill"
    ),
    _generation("turns", "measure_turns", "whole turns, end to end"),
    Benchmark("llama.cpp", "peers", "decode speed against llama.cpp, where it is installed"),
    Benchmark("gpu", "gpu", "the captured step of a CUDA device, against generate", False),
    Benchmark("load", "load", "fresh process to first token, against from_pretrained"),
    Benchmark("first-frame", "first_frame", "start to the first frame, against a bare Textual app"),
    Benchmark(
        "screen", "screen", "decode speed in the app, against the same engine headless", False
    ),
    Benchmark("wire", "wire", "bytes and processor time of a token on the screen", False),
    Benchmark("key-echo", "key_echo", "a key to its letter during a reply, against idle", False),
    Benchmark("stalls", "stalls", "what replies that are hard to show hold up", False),
    Benchmark("server", "server", "our client of a server, against a bare reader", False),
    Benchmark("library", "library", "list and search of 5,000 chats, against 50", False),
    Benchmark("open", "open_chat", "opening a chat of 10,000 messages, against one of 10", False),
    Benchmark("faults", "faults", "signals, hang-ups and stalls: what is survived", False),
    Benchmark("fuzz", "fuzz", "damaged files and random keys: what is taken well", False),
    Benchmark("soak", "soak", "prompts one after another: memory, threads, exit code", False),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"tui-chat: {message} (see {self.prog} --help)\n")


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 1 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from 1 to 100,000')
    return value


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of minutes above 0')
    return value


def _parser() -> _Parser:
    rows = "\n".join(
        f"  {bench.name:<16} {bench.help}{'' if bench.by_default else ' (only when named)'}"
        for bench in BENCHMARKS
    )
    parser = _Parser(
        prog="tui-chat bench",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures tui-chat on this machine: before is the plain way, after is ours.\n"
        "ratio says how many times better after is; in the rows of the screen, server\n"
        "and soak, which have no plain way, it is after/before. Both sides run in turn, A B A B;\n"
        "figures are medians, the ratio is taken round by round, spread is its lowest and highest\n"
        "round.",
        epilog=f"rows:\n{rows}",
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="what to measure (default: all that are not marked)"
    )
    parser.add_argument(
        "--runs", type=_count, default=0, metavar="N", help="rounds (default: each row has its own)"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print a JSON list")
    parser.add_argument("--model", metavar="NAME", help="measure with this model")
    parser.add_argument(
        "--random", choices=SHAPES, help="measure with this model of random weights (default: 0.5b)"
    )
    parser.add_argument(
        "--tokens", type=_count, default=0, metavar="N", help="length of each reply"
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=10.0,
        metavar="N",
        help="length of the soak (default: 10)",
    )
    parser.add_argument(
        "--seed",
        type=_count,
        default=1,
        metavar="N",
        help="what faults and fuzz begin with (default: 1)",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure and print; 0 when every row was measured, 1 when one failed, 128 + n on signal n.

    Raises:
        SystemExit: for --help and arguments that cannot be read.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    known = {bench.name: bench for bench in BENCHMARKS}
    for name in args.rows:
        if name not in known:
            parser.error(f"there is no row {name}; the rows are {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(args.rows)] or [
        bench for bench in BENCHMARKS if bench.by_default
    ]
    setup = Setup(
        rows=frozenset(bench.name for bench in chosen),
        runs=args.runs,
        model=args.model,
        tokens=args.tokens,
        minutes=args.minutes,
        seed=args.seed,
    )
    if args.random:
        setup = dataclasses.replace(setup, shapes=(args.random,))
    with contextlib.closing(setup.kept), _stoppable():
        return _measure(_once_each(chosen), setup, as_json_list=args.as_json)


class _Stopped(BaseException):
    """A signal asks for the end of the run; as no `Exception`, nothing on the way swallows it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise `_Stopped` on a signal, so that the models built for the run are removed."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _Stopped(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _once_each(chosen: Sequence[Benchmark]) -> list[Benchmark]:
    """`chosen` without those whose function another one calls for both."""
    return list({(bench.module, bench.function): bench for bench in reversed(chosen)}.values())[
        ::-1
    ]


def _measure(chosen: Sequence[Benchmark], setup: Setup, *, as_json_list: bool) -> int:
    rows: list[Row] = []
    code = 0
    machine = "\n".join(describe_machine().lines())
    for bench in chosen:
        try:
            for row in bench.measure(setup, _report):
                rows.append(row)
        except BenchError as error:
            print(f"tui-chat: {bench.name}: {error}", file=sys.stderr)
            code = 1
        except _Stopped as stopped:
            # What was measured before is still worth its time.
            code = stopped.code
            break
    if as_json_list:
        print(machine, file=sys.stderr)
        print(as_json(rows))
    else:
        print(f"{machine}\n\n{as_table(rows)}")
    return code


def _report(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
