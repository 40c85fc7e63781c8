"""A template is only taken for a frame around the content where it is one."""

import pytest
from chat_templates import GEMMA, LLAMA3, LLAMA31, QWEN25
from tiny_models import CHATML, INST, byte_level_tokenizer, message, talk

from tui_chat.engine.template_frame import frames_content
from tui_chat.engine.template_proof import writes_turn_by_turn
from tui_chat.engine.tokenizer import ChatTokenizer

pytestmark = pytest.mark.engine

CONTENTS = [
    "",
    " ",
    "a",
    " a\n",
    "\u2003a\u2003",
    "<think>\nb\n</think>\nc",
    "<|im_end|>",
    "x" * 50,
]


def with_content(expression: str, before: str = "") -> str:
    """ChatML with another expression in the place of the content."""
    template = CHATML.replace("m['content']", expression)
    return template.replace("{% for m in messages %}", "{% for m in messages %}" + before)


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("template", [CHATML, INST, LLAMA3, LLAMA31, GEMMA, QWEN25])
def test_common_templates_are_proven_to_frame_the_content(template: str, role: str) -> None:
    assert frames_content(template, role)


@pytest.mark.parametrize(
    "template",
    [
        with_content("m.content.strip()"),
        with_content("(m.content | trim)"),
        with_content("c", "{% set c = m.content %}"),
        with_content("c", "{% set c = 'a' ~ m['content'] | trim %}"),
        with_content("(m.content if m.role == 'user' else m['content'])"),
        with_content("m.content", "{% if 'tool_calls' in m %}{{ m.tool_calls }}{% endif %}"),
        with_content(
            "m.content", "{% if m.reasoning_content %}<{{ m.reasoning_content }}>{% endif %}"
        ),
        with_content("m.content ~ m.content"),
    ],
)
def test_a_content_that_is_only_written_is_written_the_same_way(template: str) -> None:
    assert frames_content(template, "user")
    ours = ChatTokenizer(byte_level_tokenizer(template))
    for content in CONTENTS:
        turn = ours._said(message("user", content))
        key = ("user", False, None)
        expected = ours._template._rendered_turn(turn, key)
        assert ours._template.turn_text(turn, system=False) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "(m.content | upper)",
        "(m.content | trim('x'))",
        "m.content.strip('x')",
        "m.content.lstrip()",
        "m.content[:9]",
        "(m.content | length | string)",
        "(m | tojson)",
        "(m.items() | list | string)",
        "m.get('content')",
        "m[('con' ~ 'tent')]",
        "('a' if m.content == 'b' else m.content)",
        "('a' if 'b' in m.content else 'c')",
        "((m.content ~ ' ') | trim)",
        "m.content.split('</think>')[-1]",
        "('%s' % m.content)",
        "('{}'.format(m.content))",
    ],
)
def test_a_content_that_is_used_otherwise_is_not_proven(expression: str) -> None:
    assert not frames_content(with_content(expression), "user")


@pytest.mark.parametrize(
    "before",
    [
        "{% if m.content %}x{% endif %}",
        "{% set c = m.content %}{% if c == 'a' %}x{% endif %}",
        "{% if loop.index0 == 5 %}{% set c = m.content %}{% endif %}{{ c | upper }}",
        "{% for c in m.content %}{{ c }}{% endfor %}",
        "{% for c in 'ab' %}{% if m.content == c %}x{% endif %}{% endfor %}",
        "{% if m.content == 'a' %}{% continue %}{% endif %}",
        "{% set n = m %}{{ n.content | upper }}",
        "{% set c = m.content | length %}{{ 'a' * c }}",
    ],
)
def test_a_template_that_looks_at_the_content_is_not_proven(before: str) -> None:
    template = with_content("m.content", before)
    assert not frames_content(template, "user")


def test_a_template_that_is_not_turn_by_turn_is_not_proven() -> None:
    template = with_content("m.content ~ messages[-1].content")
    assert not writes_turn_by_turn(template) and not frames_content(template, "user")


def test_a_turn_with_reasoning_is_rendered() -> None:
    template = with_content("(m.reasoning_content | default('none') ~ m.content)")
    ours = ChatTokenizer(byte_level_tokenizer(template))
    prompt = [*talk("a", "b", "c"), message("assistant", "d", reasoning="why"), *talk("e")]
    assert "whyd" in ours.render(prompt) and "nonec" in ours.render(prompt)
