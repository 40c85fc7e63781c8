"""Bars and words for what each rung of a model needs against what is free."""

from textual.content import Content
from textual.widget import Widget

from tui_chat.ui.ink import Part, gigabytes, paint
from tui_chat.ui.model_rows import ModelRow, RungFit

_LABEL = 11
_NEED = 30
_VERDICT = 14
_QUICK_BYTES = 200_000_000
"""Weights up to which a model is not slow on a CPU either."""
_NARROW = 2 + _LABEL + _NEED + _VERDICT
"""Below this there is no room for all words, and none for bars."""


class FitBars(Widget):
    """One bar a rung, all on one scale of bytes; what lies past the upright line does not fit.

    The heavy line is the weights with the workspace, the dashes behind it are the KV cache.
    """

    DEFAULT_CSS = """
    FitBars { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._model: ModelRow | None = None
        self._chosen: RungFit | None = None

    def show(self, model: ModelRow | None, chosen: RungFit | None) -> None:
        """Show the rungs of a model, nothing where none are known; `chosen` would be loaded."""
        self._model, self._chosen = model, chosen
        self.display = model is not None and bool(model.rungs)
        self.refresh(layout=True)

    def render(self) -> Content:
        if self._model is None or not self._model.rungs:
            return Content()
        width, rungs = self.size.width, self._model.rungs
        cells = max(0, min(34, width - _NARROW - 2))
        most = max(max(rung.needed_bytes, rung.free_bytes) for rung in rungs) or 1
        parts: list[Part] = []
        for rung in rungs:
            chosen = rung == self._chosen
            parts += [("you", "▌") if chosen else " ", " "]
            label = rung.label.ljust(_LABEL if width >= _NARROW else _LABEL - 1)
            parts.append(("hi", label) if chosen else label)
            if cells >= 8:
                parts += _bar(rung, cells, cells / most)
            verdict = _verdict(rung, self._model.best)
            room = width - 2 - len(label) - len(verdict[1])
            if width >= _NARROW:
                parts.append(("m", f"needs {amounts(rung)} free".ljust(_NEED)))
            else:
                needs = (f"{amounts(rung)}  ", f"{amounts(rung).replace(' of ', '/')}  ")
                parts += [("m", need) for need in needs if len(need) <= room][:1]
            parts += [verdict, "\n"]
        return paint(self.app, parts[:-1])


def amounts(rung: RungFit) -> str:
    """What a rung needs of what is free: "5.9 of 7.4 GB", "8 MB of 7.4 GB"."""
    needed, free = gigabytes(rung.needed_bytes), gigabytes(rung.free_bytes)
    if needed[-2:] == free[-2:]:
        needed = needed[:-3]
    return f"{needed} of {free}"


def _bar(rung: RungFit, cells: int, scale: float) -> list[Part]:
    needed, free = round(rung.needed_bytes * scale), round(rung.free_bytes * scale)
    cache = round(rung.cache_bytes * scale)
    fits = not rung.short_bytes
    free = max(free, needed) if fits else min(free, cells - 1)
    needed = needed if fits else max(needed, free + 1)
    line = "━" * (needed - cache) + "╍" * cache
    used, past = line[:free], line[free:]
    return [
        ("it" if fits else "m", used),
        ("off", "─" * (free - len(used))),
        "│",
        *([("warn", past)] if past else []),
        " " * (cells - free - len(past) + 1),
    ]


def _verdict(rung: RungFit, best: RungFit | None) -> tuple[str, str]:
    if rung.short_bytes:
        return "warn", f"{gigabytes(rung.short_bytes)} short"
    if rung.obstacle:
        return "m", "not used"
    if rung.spare and best is not rung:
        return "m", "not needed"
    is_slow = rung.device == "cpu" and rung.weights_bytes > _QUICK_BYTES
    return "ok", "fits, slow" if is_slow else "fits"
