import pytest

from tui_chat.engine.threads import ThreadTuner, decode_candidates

pytestmark = pytest.mark.engine


def run(tuner: ThreadTuner, seconds: dict[int, float], steps: int) -> list[int]:
    """The counts that `steps` steps were made with, when each takes what `seconds` say."""
    used = []
    for _ in range(steps):
        used.append(tuner.next_count)
        tuner.record(seconds[used[-1]])
    return used


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, (1,)), (2, (1, 2)), (4, (3, 4)), (8, (2, 4, 8)), (64, (16, 32, 64))]
)
def test_small_machines_try_with_and_without_the_last_core(
    cores: int, counts: tuple[int, ...]
) -> None:
    assert decode_candidates(cores) == counts


@pytest.mark.parametrize("start", [2, 4, 8])
def test_the_fastest_count_is_found_and_kept(start: int) -> None:
    tuner = ThreadTuner((2, 4, 8), start)

    used = run(tuner, {2: 3.0, 4: 1.0, 8: 2.0}, 2000)

    assert set(used[200:]) <= {2, 4, 8}
    assert tuner.chosen == 4
    assert used[1000:].count(4) > 980


def test_trials_become_rare_while_nothing_changes() -> None:
    used = run(ThreadTuner((1, 2), 2), {1: 2.0, 2: 1.0}, 3000)

    assert 0 < used.count(1) < 30
    assert used[:16] == [2] * 16


def test_a_count_that_becomes_slow_is_left() -> None:
    tuner = ThreadTuner((1, 2), 2)
    run(tuner, {1: 2.0, 2: 1.0}, 3000)

    used = run(tuner, {1: 2.0, 2: 9.0}, 60)

    assert tuner.chosen == 1
    assert used.count(2) < 20


def test_a_single_count_is_never_changed() -> None:
    assert set(run(ThreadTuner((1,), 1), {1: 1.0}, 200)) == {1}
