"""A short slice of `tui-chat bench faults` and `fuzz`; `--runs 200 --seed N` is the long one."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.bench.faults import FAULTS, PHASES, TRACEBACK, throw_fault
from tui_chat.bench.fuzz import start_among_damaged_files
from tui_chat.bench.fuzz_files import KINDS, damaged, read_config_folder, read_damaged

SEEDS = range(7, 15)


def test_the_seeds_of_this_slice_meet_most_phases_and_faults() -> None:
    chosen = [(chance.choice(PHASES), chance.choice(FAULTS)) for chance in map(Random, SEEDS)]
    assert {phase for phase, _ in chosen} == set(PHASES)
    assert len({fault for _, fault in chosen}) >= 5


@pytest.mark.parametrize(
    ("places", "ours"),
    [
        (["<frozen site>"], False),
        (["/venv/bin/tui-chat", "/src/tui_chat/__main__.py", "/lib/signal.py"], False),
        (["/venv/bin/tui-chat", "/src/tui_chat/__main__.py", "/src/tui_chat/cli.py"], True),
    ],
)
def test_only_a_traceback_of_ours_is_a_failure(places: list[str], ours: bool) -> None:
    lines = ["Traceback (most recent call last):", *(f'  File "{each}", line 1' for each in places)]
    assert bool(TRACEBACK.search("\r\n".join(lines).encode())) == ours


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_ends_the_program_in_time_and_loses_nothing(seed: int) -> None:
    outcome = throw_fault(seed)
    assert outcome.problems == [], str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_program_starts_answers_and_ends_on_damaged_files(seed: int) -> None:
    assert start_among_damaged_files(seed) == ""


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_read_without_an_unforeseen_error(tmp_path: Path, seed: int) -> None:
    problems = [read_damaged(tmp_path, seed, number) for number in range(12 * len(KINDS))]
    assert not any(problems)


def test_damaged_themes_and_presets_are_told_and_left_as_they_are(tmp_path: Path) -> None:
    assert read_config_folder(tmp_path, 1) == ""


@given(data=st.binary(max_size=200), seed=st.integers(0, 2**32))
def test_the_same_seed_damages_in_the_same_way(data: bytes, seed: int) -> None:
    assert damaged(data, Random(seed)) == damaged(data, Random(seed))
