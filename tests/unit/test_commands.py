import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tui_chat.ui.commands import (
    ACTIONS,
    BY_ID,
    BY_SLASH,
    GROUPS,
    TYPING_ACTIONS,
    Action,
    action_of,
    is_command,
    key_label,
    key_table,
)
from tui_chat.ui.keymap import apply_keymap

NEVER_DELIVERED = re.compile(
    r"""(ctrl\+(h|i|m|left_square_bracket)    # Backspace, Tab, Enter and Esc in disguise
      | ctrl\+(tab|shift\+tab|enter|[0-9])    # not sent by plain terminals
      | ctrl\+shift\+[a-z] | (super|cmd|meta)\+.*
      | ctrl\+[ab])                           # prefix keys of tmux and screen
    """,
    re.VERBOSE,
)


def keys_of(actions: tuple[Action, ...], action_id: str) -> tuple[str, ...]:
    return next(action.keys for action in actions if action.id == action_id)


def test_ids_are_unique_and_can_be_written_in_a_config_file() -> None:
    assert len(BY_ID) == len(ACTIONS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", action.id) for action in ACTIONS)


def test_slash_commands_are_unique() -> None:
    assert len(BY_SLASH) == sum(bool(action.slash) for action in ACTIONS)
    assert all(BY_SLASH[action.slash] is action for action in ACTIONS if action.slash)


def test_no_key_belongs_to_two_actions_at_the_same_moment() -> None:
    used = Counter((action.while_walking, key) for action in ACTIONS for key in action.keys)
    assert [key for key, count in used.items() if count > 1] == []


def test_no_key_is_one_that_terminals_do_not_deliver() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    assert [key for key in keys if NEVER_DELIVERED.fullmatch(key)] == []


def test_the_first_key_of_every_action_works_in_a_plain_terminal() -> None:
    # Shift+Enter and Alt+Enter need a modern keyboard protocol: they may only be second keys.
    first = [action.keys[0] for action in ACTIONS if action.keys]
    assert [key for key in first if key in ("shift+enter", "alt+enter")] == []


def test_every_action_can_be_reached() -> None:
    assert [action.id for action in ACTIONS if not action.keys and not action.slash] == []
    assert all(action.group in GROUPS and action.help for action in ACTIONS)


def test_a_key_is_labelled_as_people_write_it() -> None:
    assert [key_label(key) for key in ("ctrl+n", "shift+tab", "escape", "f1", "pageup", "y")] == [
        "Ctrl+N",
        "Shift+Tab",
        "Esc",
        "F1",
        "PgUp",
        "y",
    ]


def test_an_empty_keymap_changes_nothing() -> None:
    assert apply_keymap({}) == (ACTIONS, ())


def test_a_key_of_the_user_replaces_those_of_the_action() -> None:
    actions, problems = apply_keymap({"mode": "F6, ctrl+t"})
    assert keys_of(actions, "mode") == ("f6", "ctrl+t")
    assert problems == ()


def test_a_key_that_is_given_away_is_taken_from_its_old_action() -> None:
    actions, problems = apply_keymap({"chats": "ctrl+n"})
    assert keys_of(actions, "chats") == ("ctrl+n",)
    assert keys_of(actions, "new") == ()
    assert problems == (
        'keymap: "ctrl+n" is chats now, and new has no other key; give it one, or "" for none.',
    )
    assert apply_keymap({"chats": "ctrl+n", "new": ""})[1] == (), "the user knows"


def test_a_key_of_the_messages_may_be_one_that_means_something_else_in_the_box() -> None:
    actions, problems = apply_keymap({"message-copy": "c, up", "new": "right"})
    assert keys_of(actions, "message-copy") == ("c", "up")
    assert keys_of(actions, "message-continue") == ()
    assert keys_of(actions, "message-up") == ("k",)
    assert keys_of(actions, "history-previous") == ("up",)
    assert keys_of(actions, "message-next") == keys_of(actions, "new") == ("right",)
    assert [problem.split(";")[0] for problem in problems] == [
        'keymap: "c" is message-copy now, and message-continue has no other key'
    ]


def test_an_empty_text_takes_the_key_away() -> None:
    actions, _ = apply_keymap({"suspend": ""})
    assert keys_of(actions, "suspend") == ()


def test_an_unknown_action_is_one_sentence_and_the_rest_holds() -> None:
    actions, problems = apply_keymap({"fly": "f8", "help": "f9"})
    assert problems == ('keymap: there is no action "fly"; F1 lists them all.',)
    assert keys_of(actions, "help") == ("f9",)


def test_a_key_that_is_given_twice_stays_with_the_first_and_is_told() -> None:
    actions, problems = apply_keymap({"new": "f8", "chats": "f8"})
    assert keys_of(actions, "new") == ("f8",)
    assert keys_of(actions, "chats") == ()
    assert problems == ('keymap: "f8" is given to new and to chats.',)


@given(
    st.dictionaries(
        st.sampled_from([*BY_ID, "fly"]),
        st.lists(st.sampled_from(["f7", "ctrl+n", "ctrl+o", "enter", " ", ""]), max_size=3).map(
            ",".join
        ),
    )
)
def test_no_keymap_gives_one_key_to_two_actions(keymap: dict[str, str]) -> None:
    actions, _ = apply_keymap(keymap)
    used = Counter((a.while_walking, key) for a in actions for key in set(a.keys))
    assert max(used.values(), default=0) <= 1
    assert [action.id for action in actions] == [action.id for action in ACTIONS]


def test_the_key_table_holds_every_action_once() -> None:
    lines = key_table().splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == len(ACTIONS)
    for action in ACTIONS:
        assert any(
            action.help in line and action.key_label in line and action.usage in line
            for line in lines
        )
    assert max(map(len, lines)) <= 110


def test_the_key_table_shows_the_keys_of_the_user() -> None:
    actions, _ = apply_keymap({"new": "f7"})
    line = next(line for line in key_table(actions).splitlines() if "start a new chat" in line)
    assert "F7" in line and "Ctrl+N" not in line


def test_a_key_that_nobody_knows_is_named_and_the_defaults_stay() -> None:
    actions, problems = apply_keymap({"new": "ctlr+n", "chats": "hyper, f8", "mode": "ctrl+zz"})
    assert keys_of(actions, "new") == ("ctrl+n",)
    assert keys_of(actions, "chats") == ("f8",)
    assert [problem.split(" is no key")[0] for problem in problems] == [
        'keymap: "ctlr+n" for new',
        'keymap: "hyper" for chats',
        'keymap: "ctrl+zz" for mode',
    ]
    assert all(problem.count(".") == 1 and problem.endswith(".") for problem in problems)


def test_a_key_that_arrives_as_another_one_is_named() -> None:
    _, problems = apply_keymap(
        {"new": "ctrl+i", "chats": "ctrl+m", "help": "ctrl+[", "mode": "ctrl+h"}
    )
    told = " ".join(problems)
    assert [word in told for word in ("Tab", "Enter", "Esc", "Backspace")] == [True] * 4


def test_a_sign_that_is_typed_cannot_be_taken_from_the_box() -> None:
    for key in ("m", "M", "shift+a", "ü", "space", "?", "full_stop", "minus"):
        actions, problems = apply_keymap({"new": key})
        assert keys_of(actions, "new") == ("ctrl+n",), key
        assert len(problems) == 1 and "that you type" in problems[0], key


def test_keys_can_be_written_as_people_write_them() -> None:
    actions, problems = apply_keymap({"stop": "Esc", "chats": "shift+ctrl+pgup", "help": "ctrl+/"})
    assert problems == ()
    assert keys_of(actions, "stop") == ("escape",)
    assert keys_of(actions, "chats") == ("ctrl+shift+pageup",)
    assert keys_of(actions, "help") == ("ctrl+slash",)


def test_it_is_told_when_nothing_could_be_sent_any_more() -> None:
    assert apply_keymap({"send": ""})[1] == ("keymap: no key is left for send.",)
    assert apply_keymap({"new": "enter"})[1] == ("keymap: no key is left for send.",)
    assert apply_keymap({"send": "f5", "newline": "enter"})[1] == ()


def test_every_action_that_is_not_typing_is_a_command_by_its_name_or_its_id() -> None:
    for action in ACTIONS:
        if action.id in TYPING_ACTIONS:
            assert action_of(action.id) is None
        else:
            assert action_of(action.command) is action
    assert action_of("regenerate") is None, "it has a name of its own"
    assert action_of("") is None


def test_no_id_is_the_slash_name_of_another_action() -> None:
    assert all(BY_SLASH.get(action.id, action) is action for action in ACTIONS if not action.slash)


def test_a_path_at_the_beginning_is_no_command() -> None:
    assert is_command("/copy 2") and is_command("/") and is_command("/NEW")
    assert not any(map(is_command, ["/etc/hosts is odd", "hello", "/a\nb", "// comment", "/3"]))
