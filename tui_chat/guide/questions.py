"""Questions to the guide, drawn from the wordings, with the noise of real typing.

Everything is drawn from a `random.Random` that the caller seeds.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from random import Random
from typing import Any

from tui_chat.guide.facts import ACTION_TOPICS, FLAG_TOPICS, REFUSE, TALK, TOPICS
from tui_chat.guide.grammar import Slots, Wording, normalise, parse
from tui_chat.ui.commands import ACTIONS

REFUSE_SHARE = 0.31
_SHARES = {"server": 2}
"""How many times as often as the others a topic comes: this one goes by many names."""
_FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "some", "this", "that", "it", "my", "me", "i", "please"),
        *(
            "do",
            "does",
            "is",
            "are",
            "can",
            "could",
            "would",
            "to",
            "of",
            "in",
            "on",
            "for",
            "with",
        ),
    )
)
_CONTRACTIONS = (
    ("what is", "what's"),
    ("i am", "i'm"),
    ("it is", "it's"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("cannot", "can't"),
    ("i have", "i've"),
    ("where is", "where's"),
    ("i would like", "i'd like"),
    ("that is", "that's"),
    ("you are", "you're"),
    ("how is", "how's"),
    ("is not", "isn't"),
    ("going to", "gonna"),
    ("want to", "wanna"),
)
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
_KEY_WORDS = {
    "ctrl": "(ctrl|ctrl|control)",
    "escape": "(esc|escape)",
    "enter": "(enter|return)",
    "pageup": "(pgup|page up)",
    "pagedown": "(pgdn|page down)",
    "up": "(up|up arrow|arrow up)",
    "down": "(down|down arrow|arrow down)",
}
_NAMES = {
    name.lower(): name
    for name in (
        *(
            "Ollama",
            "vLLM",
            "SGLang",
            "LM Studio",
            "OpenAI",
            "ChatGPT",
            "Linux",
            "Windows",
            "Python",
        ),
        *("Hugging Face", "Markdown", "Vim", "Emacs", "Nano", "German", "French", "Spanish"),
    )
}
_OPEN_CLAUSES = (
    "i am on {x} and", "i read about {x} and", "my {x} broke but", "we talked about {x} yesterday,",
    "forget {x},", "never mind {x},", "apart from {x},", "enough about {x},",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """All that questions are drawn from."""

    questions: Mapping[str, Sequence[Wording]]
    """Whole questions of each topic, of all hands."""
    phrases: Mapping[str, Sequence[Wording]]
    nouns: Mapping[str, Sequence[Wording]]
    keys: Mapping[str, Sequence[Wording]]
    """Names of the keys, commands and flags that a topic explains."""
    phrase_frames: Sequence[Wording]
    noun_frames: Sequence[Wording]
    key_frames: Sequence[Wording]
    prefixes: Sequence[Wording]
    suffixes: Sequence[Wording]
    systems: Sequence[str]
    synonyms: Mapping[str, Sequence[str]]
    slots: Slots

    def topic_patterns(self) -> dict[str, list[re.Pattern[str]]]:
        """Of each topic, regular expressions for all its questions, in `normalise` form."""
        patterns: dict[str, list[re.Pattern[str]]] = {}
        for topic in TOPICS:
            found = [wording.pattern(self.slots) for wording in self.questions.get(topic, ())]
            for frames, fillers in (
                (self.phrase_frames, self.phrases.get(topic, ())),
                (self.noun_frames, self.nouns.get(topic, ())),
                (self.key_frames, self.keys.get(topic, ())),
            ):
                if fillers:
                    filled = {**self.slots, "x": fillers}
                    found += [frame.pattern(filled) for frame in frames]
            patterns[topic] = [re.compile(pattern) for pattern in found]
        return patterns


def _parsed(table: Mapping[str, Any], key: str) -> tuple[Wording, ...]:
    return tuple(parse(text) for text in table.get(key, ()))


def _key_names() -> dict[str, tuple[Wording, ...]]:
    names: dict[str, list[str]] = {}
    for action in ACTIONS:
        if topic := ACTION_TOPICS.get(action.id):
            slash = [f"[the command ]/{action.slash}"] if action.slash else []
            names.setdefault(topic, []).extend([*map(_key_name, action.keys), *slash])
    for flag, topic in FLAG_TOPICS.items():
        names.setdefault(topic, []).append(f"{flag}[ on the command line]")
    return {topic: tuple(map(parse, texts)) for topic, texts in names.items()}


def _key_name(key: str) -> str:
    """The ways in which people write a key, as a wording."""
    parts = [_KEY_WORDS.get(part, part) for part in key.split("+")]
    return f"[the ]{'(+|+| |-)'.join(parts)}[ key]"


def load_source() -> Source:
    """Read frames.toml and every file of wordings/.

    Raises:
        GrammarError: a wording is not well formed.
        ValueError: a file names a topic that has no answer.
    """
    folder = files("tui_chat.guide")
    frames = tomllib.loads(folder.joinpath("frames.toml").read_text("utf-8"))
    questions: dict[str, tuple[Wording, ...]] = {}
    phrases: dict[str, tuple[Wording, ...]] = {}
    nouns: dict[str, tuple[Wording, ...]] = {}
    slots: dict[str, tuple[Wording, ...]] = {}
    entries = (entry for entry in folder.joinpath("wordings").iterdir())
    for entry in sorted(entries, key=lambda entry: entry.name):
        if not entry.name.endswith(".toml"):
            continue
        for topic, table in tomllib.loads(entry.read_text("utf-8")).items():
            if topic == "slots":
                slots.update({name: _parsed(table, name) for name in table})
                continue
            if topic not in TOPICS:
                raise ValueError(f"{entry.name}: there is no topic {topic!r}")
            for store, key in ((questions, "questions"), (phrases, "phrases"), (nouns, "nouns")):
                store[topic] = store.get(topic, ()) + _parsed(table, key)
    phrases[REFUSE] = phrases.get(REFUSE, ()) + slots.get("verb_phrase", ())
    nouns[REFUSE] = nouns.get(REFUSE, ()) + slots.get("noun", ()) + slots.get("person", ())
    return Source(
        questions,
        phrases,
        nouns,
        _key_names(),
        _parsed(frames["frames"], "phrase"),
        _parsed(frames["frames"], "noun"),
        _parsed(frames["frames"], "key"),
        _parsed(frames["affixes"], "prefix"),
        _parsed(frames["affixes"], "suffix"),
        tuple(frames["affixes"]["system"]),
        {word: tuple(others) for word, others in frames["synonyms"].items()},
        slots,
    )


class QuestionMaker:
    """Draws a topic and a question about it."""

    def __init__(self, source: Source, rng: Random) -> None:
        self.source = source
        self.rng = rng
        self.topics = [
            topic for topic in TOPICS if topic != REFUSE for _ in range(_SHARES.get(topic, 1))
        ]
        self.weights = {
            topic: [min(wording.count(source.slots), 40) ** 0.5 for wording in wordings]
            for topic, wordings in source.questions.items()
        }

    def topic(self) -> str:
        """A topic: the refusal with a fixed share, nearly all of the others evenly."""
        if self.rng.random() < REFUSE_SHARE:
            return REFUSE
        return self.rng.choice(self.topics)

    def question(self, topic: str) -> str:
        """A question about `topic` as somebody might type it."""
        rng = self.rng
        if topic == REFUSE and rng.random() < 0.06:
            return _gibberish(rng, self.source)
        text = self.plain(topic)
        if rng.random() < 0.25:
            text = self._swap_words(text)
        if topic not in TALK:
            text = self._affix(text)
        elif rng.random() < 0.1:
            text = f"{rng.choice(('well', 'oh', 'ok', 'hm', 'so', 'ah', 'haha', 'yes'))} {text}"
        return dirty(text, rng, spoil=topic not in TALK and topic != REFUSE, source=self.source)

    def plain(self, topic: str) -> str:
        """A question about `topic` without noise."""
        rng, source = self.rng, self.source
        roll = rng.random()
        phrases, nouns = source.phrases.get(topic, ()), source.nouns.get(topic, ())
        if phrases and roll < 0.25:
            filled = {**source.slots, "x": phrases}
            return rng.choice(source.phrase_frames).draw(rng, filled)
        if (keys := source.keys.get(topic)) and roll > 0.9:
            return rng.choice(source.key_frames).draw(rng, {**source.slots, "x": keys})
        if nouns and roll > 0.77:
            filled = {**source.slots, "x": nouns}
            return rng.choice(source.noun_frames).draw(rng, filled)
        wording = rng.choices(source.questions[topic], self.weights[topic])[0]
        return wording.draw(rng, source.slots)

    def _affix(self, text: str) -> str:
        rng = self.rng
        if rng.random() < 0.2:
            prefix = rng.choice(self.source.prefixes).draw(rng, self.source.slots)
            text = prefix + rng.choice((" ", ", ", ", ", ". ", "! ", ": ")) + text
        elif rng.random() < 0.03:
            noun = rng.choice(self.source.slots["noun"]).draw(rng, self.source.slots)
            text = f"{rng.choice(_OPEN_CLAUSES).format(x=noun)} {text}"
        if rng.random() < 0.15:
            suffix = rng.choice(self.source.suffixes).draw(rng, self.source.slots)
            text += rng.choice((" ", ", ", ", ", "? ", ". ")) + suffix
        return text

    def _swap_words(self, text: str) -> str:
        words = []
        for word in text.split():
            others = self.source.synonyms.get(word)
            words.append(self.rng.choice(others) if others and self.rng.random() < 0.4 else word)
        return " ".join(words)


def _pseudo_word(rng: Random) -> str:
    syllables = [
        rng.choice("bcdfghjklmnprstvwz")
        + rng.choice("aeiou")
        + rng.choice(("", "n", "r", "s", "l"))
        for _ in range(rng.randint(1, 3))
    ]
    return "".join(syllables)


def _gibberish(rng: Random, source: Source) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return " ".join(_pseudo_word(rng) for _ in range(rng.randint(1, 5)))
    if kind == 1:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789?!.;:+*#") for _ in range(9))
    if kind == 2:
        return " ".join(
            str(rng.randrange(10 ** rng.randint(1, 5))) for _ in range(rng.randint(1, 4))
        )
    wordings = source.questions[REFUSE]
    texts = (rng.choice(wordings).draw(rng, source.slots) for _ in range(rng.randint(2, 4)))
    return rng.choice((". ", "\n", ", ")).join(texts)


def dirty(text: str, rng: Random, *, spoil: bool, source: Source) -> str:
    """`text` with the slips, casing and punctuation of typing.

    `spoil` also puts an unknown word in the place of a few words.
    """
    if rng.random() < 0.5:
        for long, short in _CONTRACTIONS:
            if long in text and rng.random() < 0.6:
                text = re.sub(rf"\b{long}\b", short, text)
    words = text.split()
    if len(words) > 3 and rng.random() < 0.12:
        kept = [word for word in words if word not in _FUNCTION_WORDS or rng.random() < 0.4]
        words = kept if len(kept) > 1 else words
    if len(words) > 3 and rng.random() < 0.04:
        del words[rng.randrange(len(words))]
    if spoil and len(words) > 2 and rng.random() < 0.15:
        words[rng.randrange(len(words))] = (
            _pseudo_word(rng)
            if rng.random() < 0.5
            else rng.choice(source.slots["noun"]).draw(rng, source.slots)
        )
    if rng.random() < 0.14:
        words = _typo(words, rng)
    text = " ".join(words)
    roll = rng.random()
    if roll < 0.2:
        text = text.replace("'", "")
    elif roll < 0.25:
        text = text.replace("'", "’")
    return _case_and_end(text, rng)


def _typo(words: list[str], rng: Random) -> list[str]:
    at = rng.randrange(len(words))
    word = words[at]
    if len(word) < 4 or not word.isalpha():
        return words
    spot = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        word = word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
    elif kind == 1:
        word = word[:spot] + word[spot + 1 :]
    elif kind == 2:
        word = word[:spot] + word[spot] + word[spot:]
    else:
        near = _NEIGHBOURS.get(word[spot].lower(), word[spot])
        word = word[:spot] + rng.choice(near) + word[spot + 1 :]
    return [*words[:at], word, *words[at + 1 :]]


def _case_and_end(text: str, rng: Random) -> str:
    roll = rng.random()
    if roll < 0.55:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b(?=[ '’])", "I", text)
        text = re.sub(r"\b(gpu|cpu|ssh|kv|gguf|llm|ai|json|osc|vram|ram)\b", _upper, text)
        text = re.sub(r"\b(ctrl|esc|enter|tab)\b(?=[+ ]|$)", _capital, text, count=1)
        text = re.sub(rf"\b({'|'.join(_NAMES)})\b", _name, text, flags=re.IGNORECASE)
    elif roll < 0.59:
        text = text.upper()
    elif roll < 0.62:
        text = text.title()
    roll = rng.random()
    if roll < 0.5:
        return text + "?"
    if roll < 0.62:
        return text + "."
    if roll < 0.66:
        return text + rng.choice(("!", "??", "...", "?!", " ?", "!!"))
    return text


def _upper(found: re.Match[str]) -> str:
    return found.group().upper()


def _name(found: re.Match[str]) -> str:
    return _NAMES[found.group().lower()]


def _capital(found: re.Match[str]) -> str:
    return found.group().capitalize()


def occurs_in(text: str, patterns: Mapping[str, Sequence[re.Pattern[str]]]) -> str | None:
    """The topic one of whose `patterns` stands for exactly `text`, or None."""
    key = normalise(text)
    for topic, found in patterns.items():
        if any(pattern.fullmatch(key) for pattern in found):
            return topic
    return None
