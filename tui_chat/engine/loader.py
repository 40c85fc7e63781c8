"""Loads a model by the ladder 4-bit, 8-bit, 16-bit, CPU, and says why a rung fell."""

import gc
import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
import transformers
from jinja2 import TemplateSyntaxError
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from tui_chat.engine.base import LoadCancelled, LoadError, OnProgress
from tui_chat.engine.checkpoint import Checkpoint, as_gigabytes, read_checkpoint, read_json
from tui_chat.engine.cpu_int8 import quantise
from tui_chat.engine.faults import Fault, config_fault, describe, first_line
from tui_chat.engine.hardware import Hardware, detect_hardware
from tui_chat.engine.imports import quick_imports, ranges_on_cpu
from tui_chat.engine.ladder import Step, needed_package, plan_ladder
from tui_chat.engine.template_watch import TemplateWatch
from tui_chat.types import LoadProgress, ModelSpec, Precision, Rung

logger = logging.getLogger(__name__)

_UNKNOWN_WINDOW = 4096
_SANE_WINDOW = 100_000_000
"""Tokenizers say 1e30 where they mean that there is no limit."""
_TOKENIZER_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
_STORED = {"F32": torch.float32, "F16": torch.float16}
_LOCAL_ONLY = {"local_files_only": True, "trust_remote_code": False}


@dataclass(slots=True)
class LoadedModel:
    """A model in memory and everything the screen says about it."""

    model: Any
    """A transformers causal LM in eval mode, on `device`."""
    tokenizer: Any
    """Its Hugging Face tokenizer."""
    name: str
    """Short name for the screen."""
    precision: Precision
    device: str
    """`cpu`, `cuda:0`, `mps`."""
    dtype: str
    """What is computed with: `bfloat16`, `float32`."""
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...]
    context_window: int
    weights_bytes: int
    revision: str = ""
    """Commit of the model on the hub, where it comes from the hub's cache."""


LoadWeights = Callable[[Checkpoint, Any, Step], tuple[Any, dict[str, Any]]]
"""Checkpoint, config and rung to a model and transformers' loading info; raises what it likes."""


class _WeightsBar:
    """Stands in for tqdm while transformers loads weights: reports, and raises on cancel."""

    def __init__(
        self, items: Iterable[Any] | None, total: int | None, report: Callable[[int, int], None]
    ) -> None:
        self._items = items if items is not None else ()
        self.total = total or (len(items) if isinstance(items, Sized) else 0)
        self.n = 0
        self._report = report

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def update(self, n: int = 1) -> None:
        self.n += n
        self._report(self.n, self.total)

    def __enter__(self) -> "_WeightsBar":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _is_ours(step: Step) -> bool:
    """Whether the weights are quantised by `cpu_int8` once they are loaded."""
    return step.quantize and step.precision is Precision.INT8 and step.device == "cpu"


def load_weights(checkpoint: Checkpoint, config: Any, step: Step) -> tuple[Any, dict[str, Any]]:
    """One call of `from_pretrained` for the rung `step`; raises whatever it raises."""
    options: dict[str, Any] = {
        "config": config,
        "dtype": step.dtype if step.dtype == "auto" else getattr(torch, step.dtype),
        "use_safetensors": True,
        "output_loading_info": True,
        **_LOCAL_ONLY,
    }
    if step.device != "cpu" or step.quantize or checkpoint.quantization:
        options["device_map"] = {"": step.device}
    if step.quantize and step.precision is Precision.INT4:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=options["dtype"],
            bnb_4bit_use_double_quant=True,
        )
    elif _is_ours(step):
        # As stored, so that the tensors stay mapped until each layer is quantised.
        options["dtype"] = _STORED.get(checkpoint.dtype, torch.bfloat16)
        options.pop("device_map")
    elif step.quantize:
        options["quantization_config"] = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model_class = _model_class(config, checkpoint.folder)
    with no_init_weights(), ranges_on_cpu():
        model, info = model_class.from_pretrained(checkpoint.folder, **options)
    return model, info


def load_model(
    folder: Path,
    spec: ModelSpec,
    on_progress: OnProgress,
    cancel: Event,
    *,
    name: str,
    hardware: Hardware | None = None,
    load_weights: LoadWeights = load_weights,
) -> LoadedModel:
    """Load the model in `folder` on the highest rung that works.

    Args:
        name: what the screen calls it.
        hardware: the machine as it is now; found out if None.
        load_weights: what one rung calls.

    Raises:
        LoadError: the model is refused or no rung works; one sentence.
        LoadCancelled: `cancel` was set; nothing stays in memory.
    """
    checkpoint = read_checkpoint(folder)
    _check_package(checkpoint)
    steps = plan_ladder(checkpoint, spec, hardware or detect_hardware())
    on_progress(LoadProgress("importing the model's class", detail=name))
    config = _read_config(folder)
    _model_class(config, folder)
    _check_cancel(cancel, name)
    on_progress(LoadProgress("reading tokenizer", detail=name))
    tokenizer = _read_tokenizer(folder)
    _check_cancel(cancel, name)
    climb = _Climb(checkpoint, config, on_progress, cancel, name, load_weights)
    model, step = climb.run(steps)
    window, window_notes = _context_window(config, tokenizer, spec)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        precision=step.precision,
        device=step.device,
        dtype=str(model.dtype).removeprefix("torch.") if step.dtype == "auto" else step.dtype,
        rungs=tuple(climb.rungs),
        notes=(*_notes(checkpoint), *climb.notes, *window_notes),
        context_window=window,
        weights_bytes=int(model.get_memory_footprint()),
        revision=folder.name if folder.parent.name == "snapshots" else "",
    )


class _Climb:
    """Tries one rung after the other and remembers how each went."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: Any,
        on_progress: OnProgress,
        cancel: Event,
        name: str,
        load_weights: LoadWeights,
    ) -> None:
        self.rungs: list[Rung] = []
        self.notes: list[str] = []
        self._checkpoint = checkpoint
        self._config = config
        self._on_progress = on_progress
        self._cancel = cancel
        self._name = name
        self._load_weights = load_weights
        self._next_report = 0.0

    def run(self, steps: tuple[Step, ...]) -> tuple[Any, Step]:
        """The model of the first rung that works, and that rung."""
        exhausted: Step | None = None
        shortage: Rung | None = None
        for step in steps:
            obstacle = step.obstacle
            if step.for_want_of_memory and not shortage:
                continue
            if not obstacle and exhausted and _needs_no_less(step, exhausted):
                obstacle = f"{exhausted.precision} ran out of memory, and this needs more."
            if obstacle:
                self.rungs.append(Rung(step.precision, False, obstacle))
                shortage = self.rungs[-1] if step.is_short else shortage
                continue
            started = time.perf_counter()
            model, fault = self._try(step)
            seconds = time.perf_counter() - started
            if fault is None:
                self.rungs.append(Rung(step.precision, True, _taken(step, model), seconds))
                return model, step
            _free_memory()
            if fault.kind == "cancelled":
                raise LoadCancelled(fault.sentence)
            if fault.kind == "model":
                raise LoadError(fault.sentence)
            self.rungs.append(Rung(step.precision, False, fault.sentence, seconds))
            if fault.kind == "memory":
                exhausted, shortage = step, self.rungs[-1]
        raise LoadError(self._failure(shortage, is_forced=len(steps) == 1))

    def _failure(self, shortage: Rung | None, *, is_forced: bool) -> str:
        """Why no rung works, in one sentence; memory is the reason before any other."""
        last = shortage or self.rungs[-1]
        reason = last.reason
        if shortage:
            advice = "choose a smaller model"
            if (
                is_forced
                and last.precision is not Precision.INT4
                and not self._checkpoint.quantization
            ):
                advice += " or --precision 4-bit"
            reason = f"{reason.rstrip('.')}; {advice}."
        return f"{self._name} does not load ({last.precision}): {reason}"

    def _try(self, step: Step) -> tuple[Any, Fault | None]:
        """The model, or why there is none: an exception kept would keep the model alive."""
        detail = _kind(step)
        stage = "loading weights"
        self._on_progress(LoadProgress(stage, 0.0, detail))

        def report(done: int, total: int) -> None:
            _check_cancel(self._cancel, self._name)
            now = time.monotonic()
            if total and (now >= self._next_report or done >= total):
                self._next_report = now + 0.05
                self._on_progress(LoadProgress(stage, min(1.0, done / total), detail))

        def bar(_: Any, args: tuple[Any, ...], options: dict[str, Any]) -> _WeightsBar:
            items = args[0] if args else options.get("iterable")
            return _WeightsBar(items, options.get("total"), report)

        previous = transformers_logging.set_tqdm_hook(bar)
        try:
            model, info = self._load_weights(self._checkpoint, self._config, step)
            _check_cancel(self._cancel, self._name)
            if _is_ours(step):
                stage = "quantising weights"
                self._on_progress(LoadProgress(stage, 0.0, detail))
                quantise(model, report)
        except Exception as error:
            return None, describe(error, self._checkpoint.folder)
        finally:
            transformers_logging.set_tqdm_hook(previous)
        fault = _incomplete(info, self._checkpoint.folder)
        if fault is not None:
            return None, fault
        if unused := info.get("unexpected_keys"):
            self.notes.append(f"{len(unused)} tensors of the files are not used by this model.")
        return model, None


def _needs_no_less(step: Step, exhausted: Step) -> bool:
    return step.device == exhausted.device and step.needed_bytes >= exhausted.needed_bytes


def _incomplete(info: dict[str, Any], folder: Path) -> Fault | None:
    if missing := sorted(map(str, info.get("missing_keys") or ())):
        return Fault(
            "model",
            f"{len(missing)} weights that config.json asks for are missing in {folder}"
            f" ({missing[0]}); download the model again.",
        )
    if info.get("mismatched_keys"):
        return Fault(
            "model",
            f"The weights in {folder} do not fit its config.json; download the model again.",
        )
    return None


def _taken(step: Step, model: Any) -> str:
    size = as_gigabytes(int(model.get_memory_footprint()))
    return f"{size} in {_kind(step)}."


def _kind(step: Step) -> str:
    kind = step.dtype if step.dtype != "auto" else "the stored type"
    if step.quantize:
        kind = "4-bit nf4" if step.precision is Precision.INT4 else "8-bit"
    return f"{kind} on {'the CPU' if step.device == 'cpu' else step.device}"


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _check_cancel(cancel: Event, name: str) -> None:
    if cancel.is_set():
        raise LoadCancelled(f"Loading {name} was cancelled.")


def _check_package(checkpoint: Checkpoint) -> None:
    package = needed_package(checkpoint)
    if package and importlib.util.find_spec(package) is None:
        raise LoadError(
            f"{checkpoint.folder} is quantised with {checkpoint.quantization}, which needs the"
            f" package {package}; run `pip install {package.replace('_', '-')}`."
        )


def _read_config(folder: Path) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, **_LOCAL_ONLY)
    except Exception as error:
        raise LoadError(config_fault(error, folder)) from error


def _model_class(config: Any, folder: Path) -> Any:
    auto = transformers.models.auto.modeling_auto
    for mapping, kind in (
        (auto.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.AutoModelForCausalLM),
        (auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, transformers.AutoModelForImageTextToText),
    ):
        if type(config) in mapping:
            with quick_imports():
                mapping[type(config)]
            return kind
    raise LoadError(f"{folder} is not a text-generation model; choose a chat model.")


def _read_tokenizer(folder: Path) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL_ONLY)
    except Exception as error:
        raise LoadError(_tokenizer_fault(error, folder)) from error
    if not isinstance(tokenizer.chat_template, str | dict | None):
        raise LoadError(f"The chat template in {folder} is no text; download the model again.")
    try:
        if tokenizer.chat_template:
            with TemplateWatch():
                tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise LoadError(
            f"The chat template in {folder} has a syntax error ({first_line(error)});"
            " mend chat_template.jinja or download the model again."
        ) from error
    except Exception as error:
        # Whatever else it does: what the prompts are written with is found out later, and told.
        logger.info("the chat template failed for one message: %s", type(error).__name__)
    return tokenizer


def _tokenizer_fault(error: BaseException, folder: Path) -> str:
    for name in _TOKENIZER_JSON:
        if (folder / name).is_file():
            try:
                read_json(folder / name)
            except LoadError as damage:
                return str(damage)
    return f"The tokenizer in {folder} (tokenizer.json) cannot be read: {first_line(error)}."


def _context_window(config: Any, tokenizer: Any, spec: ModelSpec) -> tuple[int, tuple[str, ...]]:
    """Tokens the model can hold, at most what `spec` allows, and a note where it is a guess."""
    text_config = config.get_text_config()
    notes: tuple[str, ...] = ()
    found = getattr(text_config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        found = getattr(tokenizer, "model_max_length", None)
    if not isinstance(found, int) or not 0 < found < _SANE_WINDOW:
        found = _UNKNOWN_WINDOW
        notes = (f"The model names no context window; {found:,} tokens are used.",)
    return min(found, spec.context_window or found), notes


def _notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    if not checkpoint.quantization:
        return ()
    return (f"The weights are already quantised ({checkpoint.quantization}).",)
