"""How many threads the model runs on."""

import os
from collections.abc import Sequence
from statistics import median

import psutil
import torch

SMALL_MACHINE_CORES = 4
FIRST_TRIAL_AFTER = 32
"""Steps before the first trial; each trial that changes nothing doubles the wait."""
LONGEST_WAIT = 1024
TRIAL_STEPS = 3
SLOWED_DOWN = 1.5
"""A step that takes so many times longer than at the last trial asks for the next one."""
WORTH_A_CHANGE = 0.9


def usable_cores() -> int:
    """Physical cores that this process may run on."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def user_decides() -> bool:
    """Whether the environment fixes the number of threads."""
    return "OMP_NUM_THREADS" in os.environ


def decode_candidates(cores: int) -> tuple[int, ...]:
    """Counts worth trying for one row, whose limit is the memory; the smallest first."""
    if cores <= SMALL_MACHINE_CORES:
        return tuple(sorted({max(1, cores - 1), cores}))
    return tuple(sorted({cores // 4, cores // 2, cores}))


def use_threads(count: int) -> None:
    """Let torch use `count` threads for what the calling thread computes."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


class ThreadTuner:
    """Keeps to the fastest of a few thread counts while steps of about equal work go on.

    With every core in use a step waits for the slowest one, and on a small machine the screen
    or another program takes its time from one of them. What pays changes, so the other counts
    are tried again now and then, for three steps.
    """

    def __init__(self, counts: Sequence[int], start: int) -> None:
        """Choose among `counts`; `start` is the first choice."""
        self.chosen = start
        self._others = [count for count in dict.fromkeys(counts) if count != start]
        self._recent: list[float] = []
        self._settled = 0.0
        """What a step took at the last trial."""
        self._wait = FIRST_TRIAL_AFTER
        self._steps = 0
        self._tried = 0
        """Steps of the running trial, 0 outside of one."""

    @property
    def next_count(self) -> int:
        """The threads for the next step."""
        return self._others[0] if self._tried else self.chosen

    def record(self, seconds: float) -> None:
        """What the step with `next_count` threads took."""
        if not self._others:
            return
        if self._tried:
            self._record_trial(seconds)
            return
        self._steps += 1
        self._recent = [*self._recent[-(TRIAL_STEPS * 2) :], seconds]
        usual = median(self._recent)
        slowed = self._settled and usual > SLOWED_DOWN * self._settled
        if self._steps >= self._wait or (slowed and self._steps >= FIRST_TRIAL_AFTER):
            self._settled = usual
            self._recent = []
            self._tried = 1

    def _record_trial(self, seconds: float) -> None:
        self._recent.append(seconds)
        self._tried += 1
        if self._tried <= TRIAL_STEPS:
            return
        other = median(self._recent)
        if other < WORTH_A_CHANGE * self._settled:
            self._others.append(self.chosen)
            self.chosen = self._others.pop(0)
            self._settled = other
            self._wait = FIRST_TRIAL_AFTER
        else:
            self._others.append(self._others.pop(0))
            self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._recent, self._steps, self._tried = [], 0, 0
