"""The ways to run a model on this machine's CPU that were measured before, in the cache folder.

Knows no torch, and takes nothing from a damaged file.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tui_chat import files

logger = logging.getLogger(__name__)

FILE_NAME = "cpu-plans.json"
KEPT_PLANS = 50


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """How a model runs on a CPU."""

    avoids_onednn: bool
    """Whether one or two rows are multiplied without oneDNN."""
    packs_attention: bool
    """Whether one row attends with its grouped queries packed."""
    widens_products: bool
    """Whether many bfloat16 rows are multiplied in float32."""
    orders_weights: bool
    """Whether rows that verify drafts are multiplied by a copy of the weights in oneDNN's order."""
    decode_threads: int | None
    """None leaves the number to torch."""
    prefill_threads: int | None

    def describe(self) -> str:
        """The choices in one line."""
        return ", ".join(
            (
                f"oneDNN {'off' if self.avoids_onednn else 'on'} for single rows",
                f"{'packed' if self.packs_attention else 'plain'} attention",
                f"{'float32' if self.widens_products else 'native'} products",
                f"{'ordered' if self.orders_weights else 'plain'} weights for drafts",
                f"threads: {self.decode_threads or 'default'} to decode, "
                f"{self.prefill_threads or 'default'} to prefill at most",
            )
        )


def keep_plan(place: Path, kept: Mapping[str, CpuPlan], key: str, plan: CpuPlan) -> None:
    """Write the last of the plans that are `kept`, and `plan` behind them."""
    recent = [item for item in kept.items() if item[0] != key][1 - KEPT_PLANS :]
    text = json.dumps({name: asdict(each) for name, each in [*recent, (key, plan)]}, indent=1)
    try:
        files.atomic_write(place, text)
    except OSError as error:
        logger.warning("The CPU plan cannot be kept (%s)", error.strerror)


def read_plans(place: Path, most_threads: int) -> dict[str, CpuPlan]:
    """The kept plans; what is damaged, or asks for more threads, is left out."""
    try:
        entries = json.loads(files.read_bytes(place))
    except (OSError, ValueError, RecursionError):
        return {}
    plans: dict[str, CpuPlan] = {}
    for name, values in entries.items() if isinstance(entries, dict) else ():
        if (plan := _plan(values, most_threads)) is not None:
            plans[name] = plan
    return plans


def _plan(values: Any, most_threads: int) -> CpuPlan | None:
    """The plan that `values` of the file say; None if they are not one."""
    try:
        plan = CpuPlan(**values)
    except TypeError:
        return None
    switches = (
        plan.avoids_onednn,
        plan.packs_attention,
        plan.widens_products,
        plan.orders_weights,
    )
    counts = (plan.decode_threads, plan.prefill_threads)
    if not all(type(switch) is bool for switch in switches):
        return None
    if not all(n is None or (type(n) is int and 0 < n <= most_threads) for n in counts):
        return None
    return plan
