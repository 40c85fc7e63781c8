"""Dialogues of several turns with the guide, and how they become token ids and labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tui_chat.guide.facts import REFUSE, TALK, TOPICS, answer
from tui_chat.guide.questions import QuestionMaker

IGNORED = -100
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
Encode = Callable[[str], list[int]]

# What may follow a turn: the next topic and its weight; None draws a topic as for a first turn.
_AFTER_REFUSAL: tuple[tuple[str | None, float], ...] = (
    ("thanks", 0.13),
    (REFUSE, 0.15),
    ("wrong", 0.06),
    ("praise", 0.06),
    ("can", 0.04),
    ("bye", 0.04),
    ("who", 0.03),
    (None, 0.49),
)
_AFTER_ANSWER: tuple[tuple[str | None, float], ...] = (
    ("thanks", 0.09),
    (REFUSE, 0.12),
    ("praise", 0.06),
    ("wrong", 0.04),
    ("bye", 0.03),
    (None, 0.66),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and what stands behind it."""

    question: str
    answer: str
    learned: bool = True
    """Whether the answer is one that the guide should give."""


class DialogueMaker:
    """Draws dialogues: answers, refusals and small talk in any order."""

    def __init__(self, questions: QuestionMaker, rng: Random) -> None:
        self.questions = questions
        self.rng = rng
        self.answers = {topic: answer(topic) for topic in TOPICS}

    def system(self) -> str:
        """A system prompt; none of them changes an answer."""
        return self.rng.choice(self.questions.source.systems)

    def single(self) -> Turn:
        """One turn on any topic."""
        topic = self.questions.topic()
        return Turn(self.questions.question(topic), self.answers[topic])

    def turns(self, count: int) -> list[Turn]:
        """`count` turns, some of them cut off or answered by another model."""
        rng = self.rng
        before: str | None = None
        drawn = []
        for _ in range(count):
            topic = self._next_topic(before)
            question = self.questions.question(topic)
            text, learned = self.answers[topic], True
            roll = rng.random()
            if roll < 0.06:
                text, learned = text[: rng.randrange(len(text))].rstrip(), False
            elif roll < 0.09:
                text, learned = self._foreign_text(), False
            drawn.append(Turn(question, text, learned))
            before = topic
        return drawn

    def _next_topic(self, before: str | None) -> str:
        if before is None:
            return self.questions.topic()
        table = _AFTER_REFUSAL if before == REFUSE else _AFTER_ANSWER
        topic = self.rng.choices([row[0] for row in table], [row[1] for row in table])[0]
        if topic is None and before == REFUSE and self.rng.random() < 0.7:
            # After a refusal the guide must go on answering: mostly a topic that has an answer.
            topic = self.rng.choice(self.questions.topics)
        return topic or self.questions.topic()

    def _foreign_text(self) -> str:
        rng = self.rng
        topics = [topic for topic in TOPICS if topic not in TALK]
        parts = [self.questions.plain(rng.choice(topics)) for _ in range(rng.randint(1, 3))]
        return ". ".join(part[:1].upper() + part[1:] for part in parts) + "."


class Encoder:
    """Turns dialogues into rows of ids and labels of a fixed width.

    `encode` gives the ids of a text without special tokens.
    """

    def __init__(self, encode: Encode, start: int, end: int, pad: int, rng: Random) -> None:
        self.encode = encode
        self.start, self.end, self.pad = start, end, pad
        self.rng = rng
        self.newline = encode("\n")
        self.heads = {
            role: [start, *encode(f"{role}\n")] for role in ("system", "user", "assistant")
        }
        self.known: dict[str, list[int]] = {}

    def cached(self, text: str) -> list[int]:
        """The ids of a text that comes often."""
        if text not in self.known:
            self.known[text] = self.encode(text)
        return self.known[text]

    def message(self, role: str, ids: Sequence[int]) -> list[int]:
        """A message of `role` as the chat template renders it."""
        return [*self.heads[role], *ids, self.end, *self.newline]

    def question_ids(self, text: str) -> list[int]:
        """The ids of a question; half of them with a word cut in two at random."""
        cut = self.rng.randrange(1, len(text)) if len(text) > 4 and self.rng.random() < 0.5 else 0
        if cut and text[cut - 1].isalpha() and text[cut].isalpha():
            return self.encode(text[:cut]) + self.encode(text[cut:])
        return self.encode(text)

    def row(
        self, turns: Sequence[Turn], width: int, system: str = ""
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of a dialogue, cut or padded to `width`."""
        ids: list[int] = self.message("system", self.cached(system)) if system else []
        labels = [IGNORED] * len(ids)
        for turn in turns:
            user = self.message("user", self.question_ids(turn.question)) + self.heads["assistant"]
            reply = [*(self.cached(turn.answer) if turn.learned else self.encode(turn.answer))]
            ids += [*user, *reply, self.end, *self.newline]
            labels += [IGNORED] * len(user)
            labels += [*reply, self.end] if turn.learned else [IGNORED] * (len(reply) + 1)
            labels += [IGNORED] * len(self.newline)
            if len(ids) >= width:
                break
        gap = width - len(ids)
        return (ids + [self.pad] * gap)[:width], (labels + [IGNORED] * gap)[:width]
