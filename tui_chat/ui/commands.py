"""The single table of actions: id, keys, slash name, help.

It feeds the bindings, the footer, the palette, the slash commands, the help screen,
`--help-keys`, the README and the training text of the built-in guide. It imports nothing of
Textual, so that the command line and the guide can read it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Group = Literal["Write", "Reply", "Walk", "Message", "Go to", "Conversation", "Context"]
GROUPS: tuple[Group, ...] = (
    *("Write", "Reply", "Walk", "Message"),
    *("Go to", "Conversation", "Context"),
)

_KEY_WORDS = {
    "ctrl": "Ctrl",
    "shift": "Shift",
    "alt": "Alt",
    "enter": "Enter",
    "escape": "Esc",
    "tab": "Tab",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "underscore": "_",
}


@dataclass(frozen=True, slots=True)
class Action:
    """One thing a user can do."""

    id: str
    """Stable name: the key of the `[keymap]` table in the config file."""
    group: Group
    help: str
    """A verb phrase, shown behind the key."""
    keys: tuple[str, ...] = ()
    """Textual key names; the first is the one that is shown."""
    slash: str = ""
    """Name of the slash command without the slash; empty when there is none."""
    argument: str = ""
    """What may follow the slash command, for its help."""

    @property
    def while_walking(self) -> bool:
        """Whether its keys count only while one walks from message to message."""
        return self.group == "Message"

    @property
    def key_label(self) -> str:
        """The shown key as people write it, such as "Ctrl+N"; empty when there is none."""
        return key_label(self.keys[0]) if self.keys else ""

    @property
    def command(self) -> str:
        """What follows the slash: its own name, else its id; empty where none makes sense."""
        return self.slash or ("" if self.id in TYPING_ACTIONS else self.id)

    @property
    def needs_argument(self) -> bool:
        """Whether the slash command says nothing without its argument."""
        return bool(self.argument) and not self.argument.startswith("[")

    @property
    def usage(self) -> str:
        """The slash command with its argument, such as "/rename TITLE"; empty without one."""
        return f"/{self.slash} {self.argument}".rstrip() if self.slash else ""


def key_label(key: str) -> str:
    """A Textual key name as people write it: "ctrl+n" becomes "Ctrl+N", "y" stays."""
    if len(key) == 1:
        return key
    return "+".join(_KEY_WORDS.get(part, part.upper()) for part in key.split("+"))


def is_command(text: str) -> bool:
    """Whether a text in the box is a /command and not a message."""
    return re.fullmatch(r"/[A-Za-z-]*([ \t].*)?", text.strip()) is not None


ACTIONS: tuple[Action, ...] = (
    Action("send", "Write", "send the message", ("enter",)),
    Action("newline", "Write", "start a new line", ("ctrl+j", "shift+enter", "alt+enter")),
    Action("history-previous", "Write", "recall the earlier prompt", ("up",)),
    Action("history-next", "Write", "recall the later prompt", ("down",)),
    Action("edit", "Write", "write the prompt in $EDITOR", ("ctrl+g",), "edit"),
    Action("complete", "Write", "complete a /command", ("tab",)),
    Action("attach", "Write", "attach a text file, as @PATH does", (), "attach", "PATH"),
    Action("detach", "Write", "take attached files out again, or file N", (), "detach", "[N]"),
    Action("unfold", "Write", "show a folded paste in full", ("f2",)),
    Action("undo-typing", "Write", "undo the last change of the draft", ("ctrl+underscore",)),
    Action("interrupt", "Write", "copy, stop, clear or quit: in that order", ("ctrl+c",)),
    Action("stop", "Reply", "stop the reply and keep its text", ("escape",), "stop"),
    Action(
        "regenerate",
        "Reply",
        "write the reply again, as a new version",
        ("ctrl+r",),
        "regen",
        "[N]",
    ),
    Action("continue", "Reply", "go on with a cut-off reply", ("ctrl+t", "f4"), "continue"),
    Action("mode", "Reply", "switch between speed and accuracy", ("shift+tab", "f3"), "mode"),
    Action("copy", "Reply", "copy the last reply, or code block N", ("ctrl+y",), "copy", "[N]"),
    Action("copy-code", "Reply", "copy the last code block, or block N", (), "copy-code", "[N]"),
    Action("copy-chat", "Reply", "copy the whole chat as Markdown", (), "copy-chat"),
    Action("save", "Reply", "write the last reply to a file", (), "save", "PATH"),
    Action("version-previous", "Reply", "show the version before", ("alt+left",)),
    Action(
        "version-next",
        "Reply",
        "show the next version, or version N",
        ("alt+right",),
        "version",
        "[N]",
    ),
    Action("amend", "Reply", "edit the last reply, to go on with it", (), "amend", "[N]"),
    Action("page-up", "Walk", "scroll up", ("pageup", "shift+up")),
    Action("page-down", "Walk", "scroll down", ("pagedown", "shift+down")),
    Action("top", "Walk", "go to the beginning", ("ctrl+home",)),
    Action("follow", "Walk", "go to the end and follow the reply", ("ctrl+end",), "end"),
    Action("find", "Walk", "find words in this chat", ("ctrl+f",), "find", "[WORDS]"),
    Action("walk-up", "Walk", "walk to the message before", ("alt+up", "f8"), "walk"),
    Action("walk-down", "Walk", "walk to the message after", ("alt+down",)),
    Action("message-up", "Message", "while walking: the message before", ("up", "k")),
    Action("message-down", "Message", "while walking: the message after", ("down", "j")),
    Action("message-copy", "Message", "copy this message as raw Markdown", ("y",)),
    Action("message-edit", "Message", "edit this message on a new branch", ("e",), "fork", "[N]"),
    Action("message-again", "Message", "write another version of this reply", ("r",)),
    Action("message-continue", "Message", "go on with this reply", ("c",)),
    Action(
        "message-exclude",
        "Message",
        "leave this turn out, or take it in",
        ("x",),
        "exclude",
        "[N]",
    ),
    Action("message-previous", "Message", "show this message's version before", ("left",)),
    Action("message-next", "Message", "show this message's next version", ("right",)),
    Action("message-open", "Message", "open or fold this message's reasoning", ("enter",)),
    Action("message-leave", "Message", "go back to the box", ("escape",)),
    Action("new", "Go to", "start a new chat", ("ctrl+n",), "new"),
    Action("chats", "Go to", "open or search earlier chats", ("ctrl+o",), "chats"),
    Action("model", "Go to", "choose and load a model", ("ctrl+l",), "model", "[NAME]"),
    Action("unload", "Go to", "free the model and its memory", (), "unload"),
    Action("palette", "Go to", "open the command palette", ("ctrl+p",)),
    Action("theme", "Go to", "choose a theme", (), "theme", "[NAME]"),
    Action("help", "Go to", "show all keys and commands", ("f1",), "help"),
    Action("suspend", "Go to", "suspend to the shell", ("ctrl+z",)),
    Action("quit", "Go to", "quit", ("ctrl+q",), "quit"),
    Action("leave", "Go to", "quit from an empty box, when pressed twice", ("ctrl+d",)),
    Action("rename", "Conversation", "rename this chat", (), "rename", "TITLE"),
    Action("pin", "Conversation", "pin this chat to the top, or unpin it", (), "pin"),
    Action("archive", "Conversation", "archive this chat, or bring it back", (), "archive"),
    Action("delete", "Conversation", "move this chat to the trash", (), "delete"),
    Action("undo", "Conversation", "bring the deleted chat back", (), "undo"),
    Action("export", "Conversation", "write this chat to a file", (), "export", "[PATH]"),
    Action("pager", "Conversation", "read this chat in $PAGER", (), "pager", "[reply]"),
    Action("print", "Conversation", "print this chat into the scrollback", (), "print", "[exit]"),
    Action("system", "Context", "set or show the system prompt", (), "system", "[TEXT]"),
    Action("context", "Context", "show what is sent, and its size", (), "context"),
    Action("metrics", "Context", "show the figures of this chat", ("f7",), "metrics", "[copy]"),
    Action("preset", "Context", "choose a preset, or save one", (), "preset", "[NAME]"),
    Action("set", "Context", "show or change this chat's settings", (), "set", "[SETTING]"),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}
BY_SLASH: Mapping[str, Action] = {action.slash: action for action in ACTIONS if action.slash}
TYPING_ACTIONS = frozenset({"send", "newline", "history-previous", "history-next", "complete"})
"""Done by the box itself, and no commands: a command would take the place of the text."""


def action_of(command: str) -> Action | None:
    """The action of a slash command: by its name, or by its id where it has none."""
    by_id = BY_ID.get(command)
    return BY_SLASH.get(command) or (by_id if by_id and by_id.command == command else None)


def key_table(actions: Iterable[Action] = ACTIONS) -> str:
    """All actions as plain text in columns, grouped: what `--help-keys` prints."""
    lines: list[str] = []
    shown = tuple(actions)
    for group in GROUPS:
        rows = [action for action in shown if action.group == group]
        if not rows:
            continue
        lines.append(f"{group}:")
        for action in rows:
            keys = ", ".join(key_label(key) for key in action.keys)
            row = f"  {action.id:<18}{keys:<32}{action.usage:<16}{action.help}"
            lines.append(row.rstrip())
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
