"""The chat template of a model: which one, what it can do, and the text it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from tui_chat.engine.base import EngineError
from tui_chat.engine.template_frame import frames_content
from tui_chat.engine.template_proof import writes_turn_by_turn
from tui_chat.engine.template_watch import TemplateTooLarge, TemplateTooSlow, TemplateWatch
from tui_chat.types import Role

CHATML_MARKERS = ("<|im_start|>", "<|im_end|>")
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MOST_WRITTEN, _MOST_TIMES = 1_000_000, 20
"""A template may write so many characters, and so many times those of the conversation."""
_PROBE = "tuichatprobe"
_PROBES = ("x", "", " a\n", "<think>\nb\n</think>\n\nc", "# d\n\n- e\n```\nf\n```", "é 世 🙂")

_EM_SPACE = "\u2003"
"""White space that no template writes by itself."""

Turn = dict[str, str]
_Kind = tuple[str, bool, bool | None]
"""Role, whether there is a system message, and thinking: what the text around a content has."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the template writes around the content of a turn."""

    before: str
    behind: str
    trims: bool
    """Whether the content loses the white space at its ends."""


class ChatTemplate:
    """A tokenizer's chat template, or ChatML where it has none that works.

    Where the template is proven to write a conversation turn by turn (`turn_by_turn`), the text
    of a prompt is that of its first turns (`text`), of each later message (`turn_text`) and of
    the generation prompt (`ending`).
    """

    def __init__(
        self, tokenizer: Any, added_tokens: Mapping[str, int], watch: TemplateWatch
    ) -> None:
        """Choose and examine the template of `tokenizer` (transformers)."""
        self._hf = tokenizer
        self._variables: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._watch = watch
        self.notes: tuple[str, ...] = ()
        self.is_chatml = False
        self.text_markers: tuple[str, ...] = ()
        """What marks roles but is no token, so that only breaking it tells it from text."""
        self.folds_system = False
        """Whether the system message has to be put before the first user message."""
        self.source = self._own_source() or self._chatml_source(added_tokens)
        self._examine(added_tokens)
        self.knows_thinking = "enable_thinking" in self.source
        self.reads_clock = "strftime_now" in self.source
        self._contexts: dict[_Kind, str] = {}
        self._frames: dict[_Kind, _Frame | None] = {}
        self.space_before_reply = self._space_before_reply()
        # The probes try the frames as well, so the first part has to be known before.
        self.turn_by_turn = writes_turn_by_turn(self.source)
        self.turn_by_turn = self.turn_by_turn and self._sums_up()

    def text(
        self, turns: Sequence[Turn], *, prompt: bool = True, thinking: bool | None = None
    ) -> str:
        """What the template writes for `turns`; with `prompt` the generation prompt too.

        Raises:
            jinja2.TemplateError: the template refuses this conversation.
        """
        variables = self._variables
        if self.knows_thinking and thinking is not None:
            variables = {**variables, "enable_thinking": thinking}
        turns = _fold_system(turns) if self.folds_system else list(turns)
        try:
            with self._watch:
                rendered, _ = render_jinja_template(
                    conversations=[turns],
                    chat_template=self.source,
                    add_generation_prompt=prompt,
                    **variables,
                )
        except TemplateError:
            raise
        except Exception as error:  # it is a program, which may fail in any way
            raise TemplateError(type(error).__name__) from error
        text = str(rendered[0])
        if len(text) > _MOST_WRITTEN + _MOST_TIMES * sum(len(str(turn)) for turn in turns):
            raise TemplateTooLarge
        return text

    def prompt(self, turns: Sequence[Turn], *, thinking: bool | None = None) -> str:
        """The text of a whole prompt, whatever the roles of `turns`.

        Turns of one role are joined where the template insists on alternation.

        Raises:
            EngineError: the template refuses this conversation.
        """
        try:
            return self.text(turns, thinking=thinking)
        except TemplateTooSlow as error:
            raise EngineError(
                "The model's chat template does not come to an end; choose another model."
            ) from error
        except TemplateTooLarge as error:
            raise EngineError(
                "The model's chat template takes too much memory; choose another model."
            ) from error
        except TemplateError:
            pass
        try:
            folded = _fold_system(turns) if self.folds_system else turns
            return self.text(_alternating(folded), thinking=thinking)
        except TemplateError as error:
            raise EngineError(
                f"The model's chat template refuses this conversation ({_short(error)}); "
                "start a new chat."
            ) from error

    def turn_text(self, turn: Turn, *, system: bool, thinking: bool | None = None) -> str:
        """What the template writes for a user or assistant turn behind the first two.

        Args:
            turn: the message.
            system: whether a system message stands at the beginning of the conversation.
            thinking: as in `text`.

        Raises:
            jinja2.TemplateError: the template refuses this message.
        """
        key = (turn["role"], system, thinking)
        if len(turn) == 2 and (frame := self._frame(key)):
            content = turn["content"]
            return f"{frame.before}{content.strip() if frame.trims else content}{frame.behind}"
        return self._rendered_turn(turn, key)

    def _rendered_turn(self, turn: Turn, key: _Kind) -> str:
        role, system, thinking = key
        before = context(role, system=system)
        known = None if self.reads_clock else self._contexts.get(key)
        if known is None:
            known = self.text(before, prompt=False, thinking=thinking)
            self._contexts[key] = known
        whole = self.text([*before, turn], prompt=False, thinking=thinking)
        return _behind(known, whole)

    def _frame(self, key: _Kind) -> "_Frame | None":
        """The texts around the content of such turns, where the template is proven to have them."""
        if key not in self._frames:
            self._frames[key] = self._find_frame(key)
        return self._frames[key]

    def _find_frame(self, key: _Kind) -> "_Frame | None":
        if not (self.turn_by_turn and frames_content(self.source, key[0])):
            return None
        text = self._rendered_turn(_turn(key[0], f"{_EM_SPACE}{_PROBE}{_EM_SPACE}"), key)
        before, *rest = text.split(_PROBE)
        if len(rest) != 1:
            return None
        behind = rest[0]
        kept = before.endswith(_EM_SPACE), behind.startswith(_EM_SPACE)
        if kept == (True, True):
            return _Frame(before[:-1], behind[1:], trims=False)
        return _Frame(before, behind, trims=True) if kept == (False, False) else None

    def ending(self, *, system: bool, thinking: bool | None = None) -> str:
        """The generation prompt. Raises jinja2.TemplateError like `text`."""
        before = [*context(Role.USER, system=system), plain_turn(Role.USER)]
        known = self.text(before, prompt=False, thinking=thinking)
        return _behind(known, self.text(before, thinking=thinking))

    def sample(self) -> str:
        """Some prompts, to see which tokens the template writes."""
        turns = [plain_turn(Role.USER), plain_turn(Role.ASSISTANT), plain_turn(Role.USER)]
        with_system = [plain_turn(Role.SYSTEM), *turns]
        return self.text(turns) + self.text(with_system)

    # Which template

    def _own_source(self) -> str:
        template = self._hf.chat_template
        if isinstance(template, dict):
            template = template.get("default") or next(iter(template.values()), "")
        return template if isinstance(template, str) else ""

    def _chatml_source(self, added_tokens: Mapping[str, int]) -> str:
        self.is_chatml = True
        self.text_markers = tuple(m for m in CHATML_MARKERS if m not in added_tokens)
        self._note("The tokenizer has no chat template, so ChatML is used; replies may be poor.")
        first = self._hf.encode("x", add_special_tokens=True)[:1]
        starts_with_bos = self._hf.bos_token_id is not None and first == [self._hf.bos_token_id]
        return ("{{ bos_token }}" if starts_with_bos else "") + CHATML_TEMPLATE

    def _note(self, sentence: str) -> None:
        self.notes = (*self.notes, sentence)

    # What it can do

    def _examine(self, added_tokens: Mapping[str, int]) -> None:
        """Find out whether the template works, and whether it takes a system message."""
        self.knows_thinking = False
        talk = [plain_turn(Role.USER), plain_turn(Role.ASSISTANT), plain_turn(Role.USER)]
        try:
            self.text(talk)
        except Exception as error:
            self._note(
                f"The model's chat template is broken ({type(error.__cause__ or error).__name__})."
            )
            self.source = self._chatml_source(added_tokens)
            return
        try:
            shown = _PROBE in self.text([_turn(Role.SYSTEM, _PROBE), *talk])
        except Exception:
            shown = False
        if not shown:
            self.folds_system = True
            self._note(
                "The chat template takes no system message, so the system prompt is put "
                "before your first message."
            )

    def _space_before_reply(self) -> str:
        """White space that the template writes between generation prompt and reply."""
        asked = [plain_turn(Role.USER)]
        try:
            prompt = self.text(asked)
            whole = self.text([*asked, _turn(Role.ASSISTANT, _PROBE)], prompt=False)
        except Exception:
            return ""
        between = whole.removeprefix(prompt).partition(_PROBE)[0]
        return between if whole.startswith(prompt) and between.isspace() else ""

    def _sums_up(self) -> bool:
        """Whether the sum of the parts is the whole on probes, as the proof says."""
        roles = (Role.USER, Role.ASSISTANT)
        turns = [_turn(roles[n % 2], f"{n}{probe}") for n, probe in enumerate((*_PROBES, "z"))]
        try:
            for first in ([], [_turn(Role.SYSTEM, _PROBE)]):
                head, inner = [*first, *turns[:2]], bool(first) and not self.folds_system
                parts = [self.text(head, prompt=False)]
                parts += [self.turn_text(turn, system=inner) for turn in turns[2:]]
                parts += [self.ending(system=inner)]
                if "".join(parts) != self.text([*first, *turns]):
                    return False
        except Exception:
            return False
        return True


def plain_turn(role: str) -> Turn:
    """A turn of one letter, to measure by."""
    return _turn(role, "x")


def context(role: str, *, system: bool) -> list[Turn]:
    """A short conversation that a turn of `role` may follow as a later one."""
    before = [plain_turn(Role.SYSTEM)] if system else []
    before += [plain_turn(Role.USER), plain_turn(Role.ASSISTANT)]
    return before if role == Role.USER else [*before, plain_turn(Role.USER)]


def _turn(role: str, content: str) -> Turn:
    return {"role": str(role), "content": content}


def _behind(known: str, whole: str) -> str:
    if not whole.startswith(known):
        raise TemplateError("what was written changes with what follows")
    return whole[len(known) :]


def _short(error: TemplateError) -> str:
    return " ".join((error.message or type(error).__name__)[:120].split())


def _fold_system(turns: Sequence[Turn]) -> list[Turn]:
    """Put the system text before the text of the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == Role.SYSTEM)
    rest = [turn for turn in turns if turn["role"] != Role.SYSTEM]
    if not system:
        return rest
    for index, turn in enumerate(rest):
        if turn["role"] == Role.USER:
            rest[index] = {**turn, "content": f"{system}\n\n{turn['content']}"}
            return rest
    return [{"role": Role.USER.value, "content": system}, *rest]


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Join neighbours of one role and drop replies that nothing stands before."""
    joined: list[Turn] = []
    for turn in turns:
        if not any(t["role"] == Role.USER for t in joined) and turn["role"] == Role.ASSISTANT:
            continue
        if joined and joined[-1]["role"] == turn["role"]:
            content = f"{joined[-1]['content']}\n\n{turn['content']}"
            joined[-1] = {**joined[-1], "content": content}
        else:
            joined.append(turn)
    return joined
