"""How the blocks of a reply look in the real app."""

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, shown, until
from textual.pilot import Pilot

from tui_chat.ui.app import TuiChat
from tui_chat.ui.message_view import Reply

NESTED = """\
# Title

- one
  - two
    - three
      - four
- [ ] open
- [x] done

9. nine
10. [x] ten

> a quote
>
> goes on

An ![old map](https://example.org/map.png) and \\(a_1\\) here.

| left | right |
|------|------:|
| a | 1 |
| bcd | 1,000 |

---

The end.
"""


def rows(app: TuiChat) -> list[str]:
    return [row.rstrip() for row in shown(app).splitlines()]


async def answered(pilot: Pilot[int]) -> TuiChat:
    app = await ready(pilot)
    await ask(pilot, "hello")
    await until(pilot, lambda: "tok/s · speed" in shown(app))
    return app


async def test_the_blocks_of_a_reply_are_drawn_quietly(make_app: MakeApp) -> None:
    app = make_app(reply=NESTED)
    async with app.run_test(size=(80, 50)) as pilot:
        await answered(pilot)
        lines = [row[3:] for row in rows(app)]
        start = lines.index("Title")
        assert lines[start : start + 11] == [
            "Title",
            "─" * 74,
            "• one",
            "  ◦ two",
            "    - three",
            "      • four",
            "☐ open",
            "☑ done",
            "",
            " 9. nine",
            "10. ☑ ten",
        ]
        quote = lines.index("│ a quote")
        assert lines[quote : quote + 3] == ["│ a quote", "│", "│ goes on"]
        assert "An image: old map (example.org) and \\(a_1\\) here." in lines
        table = next(number for number, line in enumerate(lines) if line.startswith("left"))
        assert lines[table] == "left  right"
        assert lines[table + 2 : table + 4] == ["a         1", "bcd   1,000"]


async def test_a_streamed_reply_looks_like_the_stored_one(make_app: MakeApp) -> None:
    app = make_app(reply=NESTED, rate=400.0)
    async with app.run_test(size=(80, 60)) as pilot:
        await answered(pilot)
        streamed = rows(app)
        reply = app.screen.query_one(Reply)
        await reply.show(reply.source)
        await pilot.pause()
        assert rows(app) == streamed


@pytest.mark.parametrize("rate", [0.0, 300.0])
async def test_code_blocks_are_numbered_through_the_chat(make_app: MakeApp, rate: float) -> None:
    code = "Two:\n\n```py\na = 1\n```\n\nand\n\n```py\nb = 2\n```\n"
    app = make_app(reply=code, rate=rate)
    async with app.run_test(size=(80, 40)) as pilot:
        await ready(pilot)
        for wanted in ([1, 2], [1, 2, 3, 4]):
            await ask(pilot, "hello")
            await pilot.pause()
            heads = [row for row in rows(app) if "/copy" in row]
            assert [int(head.split()[-1]) for head in heads] == wanted
