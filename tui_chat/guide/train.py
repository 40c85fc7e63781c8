"""Train the built-in guide: `python -m tui_chat.guide.train`.

The same seed and thread count give the same weights on the same kind of processor. From scratch
it needs about 30 minutes on two cores; with a C++ compiler the model is compiled, without one it
takes about twice as long. `--from FOLDER` trains a model further that is there, with its tokenizer.

The weights in `model/` come from four runs, each but the first `--from` the one before, since the
questions were added to in between:

    4,000 steps from scratch, with the defaults
    --steps 2400 --learning-rate 1e-3 --seed 2    more wordings of the newer topics
    --steps 1000 --learning-rate 1e-3 --seed 3    servers four times as often, Ollama spelled so
    --steps 800 --learning-rate 7e-4 --seed 4     servers twice as often

A run from scratch with all of it has not been tried. The check in the log is of wordings that were
held out in the first run only: another seed holds out others.
"""

import argparse
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tui_chat.guide.dialogues import END, IGNORED, PAD, START, DialogueMaker, Encoder
from tui_chat.guide.facts import TOPICS, answer
from tui_chat.guide.grammar import Wording
from tui_chat.guide.questions import QuestionMaker, Source, load_source

MODEL_DIR = Path(__file__).parent / "model"
VOCABULARY = 2048
POSITIONS = 2048
# Punctuation takes the line end with it, so that the rows of a table are no repeated 3-grams.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How many tokens of an answer are worth one unit of loss: short and long rows weigh the same.
_TOKENS_PER_ANSWER = 10
_DECISION = 3
"""Tokens of an answer that settle which topic it is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A fixed batch shape, so that each is compiled once."""

    rows: int
    width: int
    turns: tuple[int, int]
    share: float


SHAPES: Mapping[str, Shape] = {
    "short": Shape(80, 40, (1, 1), 0.50),
    "dialogue": Shape(16, 224, (3, 7), 0.47),
    "long": Shape(2, 1536, (25, 50), 0.03),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made of."""

    steps: int = 4000
    seed: int = 1
    threads: int = 2
    learning_rate: float = 2e-3
    hold_out: float = 0.02
    """Share of the wordings that are kept for the check of the result, not for training."""
    compiled: bool = True
    start: Path | None = None
    """A folder whose weights and tokenizer are trained further; None begins from scratch."""


def split_source(source: Source, share: float, rng: Random) -> tuple[Source, Source]:
    """The wordings to train on, and the ones that are held out (everything when `share` is 0)."""
    if share <= 0:
        return source, source
    kept: dict[str, list[Wording]] = {}
    held: dict[str, list[Wording]] = {}
    for topic, wordings in source.questions.items():
        order = list(wordings)
        rng.shuffle(order)
        cut = max(1, round(len(order) * share))
        held[topic], kept[topic] = order[:cut], order[cut:]
    return replace(source, questions=kept), replace(
        source, questions=held, phrases={}, nouns={}, keys={}
    )


def make_tokenizer(source: Source, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the ChatML template, made from drawn questions."""
    questions = QuestionMaker(source, Random(seed))
    texts = [questions.question(questions.topic()) for _ in range(30_000)]
    texts += [answer(topic) for topic in TOPICS] * 150
    texts += ["system\n", "user\n", "assistant\n"] * 1000
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    template = files("tui_chat.guide").joinpath("chatml.jinja").read_text("utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=template.rstrip("\n"),
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model: 2.2 million parameters, embeddings tied."""
    end = tokenizer.convert_tokens_to_ids(END)
    pad = tokenizer.convert_tokens_to_ids(PAD)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=[end, pad],
        pad_token_id=pad,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[end, pad], pad_token_id=pad
    )
    return model


class Batches:
    """Rows of drawn dialogues in the fixed shapes."""

    def __init__(self, source: Source, tokenizer: PreTrainedTokenizerFast, rng: Random) -> None:
        self.rng = rng
        self.dialogues = DialogueMaker(QuestionMaker(source, rng), rng)
        backend = tokenizer.backend_tokenizer

        def encode(text: str) -> list[int]:
            ids: list[int] = backend.encode(text, add_special_tokens=False).ids
            return ids

        start, end, pad = (tokenizer.convert_tokens_to_ids(name) for name in (START, END, PAD))
        self.encoder = Encoder(encode, start, end, pad, rng)

    def draw(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Ids and labels, both (rows, width)."""
        rows = [self._row(shape) for _ in range(shape.rows)]
        return torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])

    def _row(self, shape: Shape) -> tuple[list[int], list[int]]:
        low, high = shape.turns
        while True:
            system = ""
            if high > 1:
                turns = self.dialogues.turns(self.rng.randint(low, high))
                system = self.dialogues.system() if self.rng.random() < 0.2 else ""
            else:
                turns = [self.dialogues.single()]
            ids, labels = self.encoder.row(turns, shape.width, system)
            if sum(label != IGNORED for label in labels) > _DECISION:
                return ids, labels


def answer_starts(labels: Tensor) -> Tensor:
    """True where the first token of an answer is the label. Shape as `labels`: (rows, width)."""
    learned = labels != IGNORED
    before = torch.roll(learned, 1, dims=1)
    before[:, 0] = False
    return learned & ~before


def loss_of(hidden: Tensor, labels: Tensor, model: LlamaForCausalLM) -> Tensor:
    """Cross entropy of the answers, per answer and not per token."""
    shifted = labels[:, 1:]
    chosen = shifted != IGNORED
    logits = model.lm_head(hidden[:, :-1][chosen]).float()
    total = torch.nn.functional.cross_entropy(logits, shifted[chosen], reduction="sum")
    return total / (_TOKENS_PER_ANSWER * answer_starts(labels).sum())


@torch.no_grad()
def decision_accuracy(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> tuple[int, int]:
    """How many answers begin right (their first tokens), and how many there are."""
    guesses = model(input_ids=ids).logits[:, :-1].argmax(-1)
    right = torch.nn.functional.pad(guesses == labels[:, 1:], (1, _DECISION), value=True)
    right |= torch.nn.functional.pad(labels == IGNORED, (0, _DECISION), value=True)
    starts = answer_starts(labels)
    good = starts.clone()
    for ahead in range(_DECISION):
        good &= right[:, ahead : ahead + labels.shape[1]]
    return int(good.sum()), int(starts.sum())


def evaluate(model: LlamaForCausalLM, batches: Batches) -> str:
    """Decision accuracy on single turns and in dialogues, as a line for the log."""
    model.eval()
    parts = []
    for name, shape, rounds in (
        ("one turn", Shape(64, 64, (1, 1), 1.0), 10),
        ("dialogue", Shape(8, 512, (8, 8), 1.0), 8),
    ):
        pairs = [decision_accuracy(model, *batches.draw(shape)) for _ in range(rounds)]
        good, all_of_them = (sum(column) for column in zip(*pairs, strict=True))
        parts.append(f"{name} {good}/{all_of_them} = {good / all_of_them:.1%}")
    model.train()
    return ", ".join(parts)


def _rate(step: int, options: Options) -> float:
    warm_up = min(60, options.steps // 5 + 1)
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, options.steps - warm_up)
    return options.learning_rate * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)))


def _shape_plan(options: Options, rng: Random) -> Iterator[Shape]:
    names = list(SHAPES)
    for step in range(options.steps):
        name = rng.choices(names, [SHAPES[name].share for name in names])[0]
        if name == "long" and step < options.steps * 0.15:
            name = "dialogue"
        yield SHAPES[name]


def train(
    options: Options, out: Path
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, list[float]]:
    """Train and write the model to `out`; returns it with the loss of every step.

    Raises:
        OSError: `out` cannot be written.
    """
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    kept, held = split_source(load_source(), options.hold_out, Random(options.seed))
    if options.start is None:
        tokenizer = make_tokenizer(kept, options.seed)
        model = make_model(tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.start)
        model = make_model(tokenizer)
        weights = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
        model.load_state_dict(weights.state_dict())
    batches = Batches(kept, tokenizer, Random(options.seed))
    checks = Batches(held, tokenizer, Random(options.seed + 1))
    compiled = options.compiled and shutil.which("g++") is not None
    run = torch.compile(model.model, dynamic=False) if compiled else model.model
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=options.learning_rate,
        betas=(0.9, 0.98),
    )
    losses: list[float] = []
    began = time.monotonic()
    for step, shape in enumerate(_shape_plan(options, Random(options.seed))):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, options)
        ids, labels = batches.draw(shape)
        loss = loss_of(run(input_ids=ids, use_cache=False).last_hidden_state, labels, model)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == options.steps:
            recent = losses[-50:]
            seconds = time.monotonic() - began
            print(
                f"step {step + 1} loss {sum(recent) / len(recent):.4f} {seconds:.0f} s", flush=True
            )
        if (step + 1) % 1000 == 0 or step + 1 == options.steps:
            save(model, tokenizer, out)
            print(f"step {step + 1}: {evaluate(model, checks)}", flush=True)
    return model, tokenizer, losses


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bfloat16), configs, tokenizer and chat template to the folder `out`."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the built-in guide.")
    default = Options()
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="FOLDER",
        help="train the model in this folder further, with its tokenizer",
    )
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument(
        "--hold-out",
        type=float,
        default=default.hold_out,
        help="share of the wordings kept for the check",
    )
    parser.add_argument("--no-compile", action="store_true", help="train without a C++ compiler")
    parser.add_argument("--out", type=Path, default=MODEL_DIR)
    given = parser.parse_args(arguments)
    options = Options(
        steps=given.steps,
        seed=given.seed,
        threads=given.threads,
        learning_rate=given.learning_rate,
        start=given.start,
        hold_out=given.hold_out,
        compiled=not given.no_compile,
    )
    train(options, given.out)


if __name__ == "__main__":
    main()
