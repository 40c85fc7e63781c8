import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tui_chat.bench import run
from tui_chat.bench.chat import running_chat
from tui_chat.bench.harness import (
    BenchError,
    Kept,
    Row,
    Unit,
    as_json,
    as_table,
    compare,
    describe_machine,
    gain,
    interleave,
)
from tui_chat.bench.models import passages
from tui_chat.bench.soak import Sample, rows_of
from tui_chat.bench.terminal import Terminal, private_environment
from tui_chat.bench.vocabulary import (
    FIRST_OPENER,
    PASSAGES,
    as_text,
    markdown_vocabulary,
    passage_starts,
)

KEYS = {"row", "before", "after", "unit", "ratio", "runs", "spread"}
figures = st.floats(0.001, 1000.0)


def silent(line: str) -> None:
    pass


def counting(names: list[str], name: str, values: Iterator[float]) -> float:
    names.append(name)
    return next(values)


def test_the_sides_run_in_turn_and_the_warm_up_is_thrown_away() -> None:
    order: list[str] = []
    first, second = iter([99.0, 1.0, 2.0]), iter([98.0, 3.0, 4.0])
    found = interleave(
        {
            "a": lambda: counting(order, "a", first),
            "b": lambda: counting(order, "b", second),
        },
        2,
        silent,
    )
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_each_run_is_reported_to_the_reader() -> None:
    lines: list[str] = []
    interleave({"a": lambda: 0.5}, 2, lines.append)
    assert lines == ["a, warm-up: 0.5", "a, run 1 of 2: 0.5", "a, run 2 of 2: 0.5"]


def test_a_busy_spell_that_slows_both_sides_does_not_move_the_ratio() -> None:
    row = compare("r", [1.0, 10.0, 1.0, 10.0], [2.0, 20.0, 2.0, 20.0], unit="s")
    assert (row.ratio, row.spread) == (2.0, (2.0, 2.0))


@given(st.lists(st.tuples(figures, figures), min_size=1, max_size=9))
def test_the_ratio_lies_within_the_spread(rounds: list[tuple[float, float]]) -> None:
    before, after = zip(*rounds, strict=True)
    row = compare("r", before, after, unit="s")
    assert row.spread[0] <= row.ratio <= row.spread[1]
    assert row.runs == len(rounds)
    assert (row.before, row.after) == (statistics.median(before), statistics.median(after))


@pytest.mark.parametrize(
    ("before", "after", "unit"), [(2.0, 0.5, "s"), (8.0, 2.0, "ms"), (5.0, 20.0, "tokens/s")]
)
def test_the_ratio_of_an_optimisation_says_how_many_times_better_it_is(
    before: float, after: float, unit: Unit
) -> None:
    row = gain("r", [before, before], [after, after / 2], unit=unit)
    first, second = (4.0, 8.0) if unit != "tokens/s" else (4.0, 2.0)
    assert row.ratio == statistics.median([first, second])
    assert row.spread == (min(first, second), max(first, second))
    assert (row.before, row.after) == (before, after * 0.75)


def test_what_a_run_shares_is_made_once_and_closed_at_its_end() -> None:
    made: list[str] = []
    closed: list[str] = []

    @contextmanager
    def thing() -> Iterator[str]:
        made.append("thing")
        yield "thing"
        closed.append("thing")

    kept = Kept()
    assert kept.get("a", thing) == kept.get("a", thing) == "thing"
    assert (made, closed) == (["thing"], [])
    kept.close()
    assert closed == ["thing"]


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])]
)
def test_figures_that_have_no_ratio_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        compare("r", before, after, unit="s")


def test_json_is_a_list_of_objects_with_the_agreed_keys() -> None:
    row = compare("first-frame", [0.2, 0.3], [0.4, 0.3], unit="s")
    (found,) = json.loads(as_json([row]))
    assert found.keys() >= KEYS
    assert found["spread"] == [1.0, 2.0]


def test_the_table_is_aligned_and_ends_with_the_notes() -> None:
    rows = [
        Row("short", 1.0, 2.0, "s", 2.0, 3, (1.9, 2.1), "a note"),
        Row("a much longer name", 1234.5, 0.001, "tokens/s", 0.5, 12, (0.4, 10.25)),
    ]
    head, first, second, *rest = as_table(rows).splitlines()
    assert len(head) == len(first) == len(second)
    assert first.index("  s  ") == second.index("  tokens/s")
    assert rest == ["", "short: a note"]


def test_the_machine_is_named() -> None:
    text = "\n".join(describe_machine().lines())
    for word in ("cpu: ", "cores: ", "memory: ", "gpu: ", "Python ", "torch ", "textual "):
        assert word in text


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["frist-frame"])
    assert ended.value.code == 2
    assert "there is no row frist-frame" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--runs", "0"], ["--runs", "x"], ["--minutes", "nan"]])
def test_numbers_that_make_no_sense_are_usage_errors(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(argv)
    assert ended.value.code == 2


def test_a_program_that_paints_nothing_is_told_in_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no screen here')"]
    with (
        Terminal(command, private_environment(tmp_path)) as terminal,
        pytest.raises(BenchError, match=r"ended before it painted.*no screen here"),
    ):
        terminal.wait_for("a frame")


def test_a_program_gets_the_size_of_its_terminal_and_its_keys(tmp_path: Path) -> None:
    code = (
        "import os, sys; size = os.get_terminal_size()\n"
        "print('\\x1b[?1049hsize', size.columns, size.lines, flush=True)\n"
        "print('got', input(), flush=True)"
    )
    with Terminal(
        [sys.executable, "-c", code], private_environment(tmp_path), columns=100, lines=30
    ) as terminal:
        terminal.wait_for("size 100 30")
        terminal.type("some keys\r")
        terminal.wait_for("got some keys")
        assert terminal.exit_code() == 0


def test_replies_of_the_app_are_read_from_its_files(tmp_path: Path) -> None:
    script = tmp_path / "reply.md"
    script.write_text("An answer of six short words.", encoding="utf-8")
    with running_chat(["--model", f"echo:{script}"]) as chat:
        chat.send("A question")
        reply = chat.wait_for_reply()
        assert reply.content == "An answer of six short words."
        assert reply.metrics is not None
        assert reply.metrics.tokens_per_second > 0
        assert chat.new_replies() == []


def test_a_model_that_cannot_be_loaded_ends_the_benchmark_with_the_reason(tmp_path: Path) -> None:
    with (
        running_chat(["--model", str(tmp_path / "nowhere")]) as chat,
        pytest.raises(BenchError, match="could not load the model"),
    ):
        chat.send("A question")
        chat.wait_for_reply()


def test_random_replies_are_markdown_of_different_words() -> None:
    tokens = markdown_vocabulary(8192)
    assert len(set(tokens)) == len(tokens) == 8192
    assert all(opener.isalpha() for opener in tokens[FIRST_OPENER : FIRST_OPENER + PASSAGES])
    assert all(word.startswith("Ġ") for word in tokens[FIRST_OPENER + PASSAGES :])
    starts = passage_starts(8192)
    kinds = Counter(
        token.type for token in MarkdownIt().parse(as_text(tokens[starts[0] : starts[20]]))
    )
    assert min(kinds[kind] for kind in ("fence", "heading_open", "bullet_list_open")) >= 5
    assert all(as_text([tokens[start - 1]]).endswith(".\n\n") for start in starts[1:])


def test_every_reply_of_a_random_model_is_a_passage_of_its_own() -> None:
    texts = passages("30m", 20)
    assert len({text.split(" ")[0] for text in texts}) == PASSAGES
    assert all(len(text.split(" ")) == 20 for text in texts)


def test_the_soak_compares_its_end_with_the_time_after_the_warm_up() -> None:
    megabyte = 1_000_000
    samples = [Sample(second, (100 + second) * megabyte, 5) for second in range(0, 100)]
    memory, threads = rows_of(samples, 100.0, "facts")
    assert (memory.before, memory.after) == (124.5, 194.5)
    assert threads.ratio == 1.0
    assert "facts" in memory.note


def test_a_soak_without_an_end_is_refused() -> None:
    with pytest.raises(BenchError, match="too short"):
        list(rows_of([Sample(25.0, 1, 1)], 100.0, ""))


@pytest.mark.slow
def test_a_short_soak_ends_with_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "reply.md"
    script.write_text("A reply with `code` and a [link](https://example.org).\n\n- one\n- two\n")
    assert run(["soak", "--minutes", "0.1", "--model", f"echo:{script}", "--json"]) == 0
    memory, threads = json.loads(capsys.readouterr().out)
    assert memory["unit"] == "MB"
    assert "exit code 0, 0 tracebacks" in memory["note"]
    assert threads["after"] >= 1
