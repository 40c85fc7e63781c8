"""Each row measured for real, once and small, with the built-in model."""

import json
import math
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tui_chat.bench import peers, run
from tui_chat.bench.terminal import private_environment, tui_chat_command

pytestmark = [pytest.mark.slow, pytest.mark.engine]

HOST = ("trim", "count", "keystroke", "build-prompt", "tokenize", "sample", "clean")
DECODE = ("decode-speed", "decode-accuracy", "mode")
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Every row but those of fresh processes and of the screen, in one run."""
    names = [*HOST, *DECODE, "speculation", "ttft", "turns"]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *args, **_: printed.append(str(args[0])))
        code = run([*names, "--model", "guide", "--runs", "1", "--tokens", "4", "--json"])
    assert code == 0, printed
    found = next(text for text in printed if text.startswith("["))
    return {row["row"]: row for row in json.loads(found)}


def test_each_row_has_its_name_and_a_ratio(rows: Rows) -> None:
    assert list(rows) == [
        *HOST,
        *(f"{name} 1024" for name in DECODE),
        "speculation copying",
        "speculation other",
        "ttft turn 2",
        "ttft turn 5",
        "ttft turn 10",
        "turns",
    ]


def test_the_ratio_says_how_many_times_better_after_is(rows: Rows) -> None:
    for row in rows.values():
        better = row["after"] / row["before"]
        if row["unit"] != "tokens/s":
            better = 1 / better
        assert math.isclose(row["ratio"], better), row["row"]
        assert row["runs"] == 1


def test_cleaning_a_stream_is_far_ahead_of_the_plain_way(rows: Rows) -> None:
    assert rows["clean"]["ratio"] > 5


def test_the_prompt_is_reused_from_turn_to_turn(rows: Rows) -> None:
    reused = [
        int(rows[f"ttft turn {turn}"]["note"].split()[2].replace(",", "")) for turn in (2, 10)
    ]
    assert 0 < reused[0] < reused[1]


def test_loading_is_measured_from_a_fresh_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["load", "--model", "guide", "--runs", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["row"], row["unit"]) == ("load guide", "s")
    assert row["after"] > 0.2


def test_a_missing_peer_is_told_in_a_sentence_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PACKAGES", ("a_package_that_is_not_there",))
    assert run(["llama.cpp", "clean", "--runs", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert "llama.cpp is left out" in printed.err
    assert [row["row"] for row in json.loads(printed.out)] == ["clean"]


def test_llama_cpp_gives_the_same_reply_from_the_same_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in peers.PACKAGES:
        pytest.importorskip(package)
    assert run(["llama.cpp", "--model", "guide", "--runs", "1", "--tokens", "4", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["row"] == "llama.cpp 1024"
    assert "identical" in row["note"]


def test_a_signal_ends_the_run_with_the_rows_that_were_measured(tmp_path: Path) -> None:
    command = [*tui_chat_command(), "bench", "clean", "count", "--runs", "50", "--json"]
    running = subprocess.Popen(
        command,
        env=private_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "count, plain, run 1" in line:
            break
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert [row["row"] for row in json.loads(out)] == ["clean"]


def test_a_model_that_is_not_there_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["trim", "--model", "./nowhere", "--runs", "1"]) == 1
    assert "tui-chat: trim: " in capsys.readouterr().err


def test_our_client_of_a_server_is_measured_beside_a_bare_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["server", "--runs", "1", "--json"]) == 0
    cpu, first = json.loads(capsys.readouterr().out)
    assert (cpu["row"], first["row"]) == ("server: CPU, 2,000 tokens", "server: first token")
    assert min(cpu["before"], cpu["after"], first["before"], first["after"]) > 0
