"""Proves from the syntax of a chat template that it writes a conversation turn by turn.

Such a template writes, for a system message and user and assistant messages that alternate: a
head for the first two turns, then for each later message a text that depends on that message
alone, then a generation prompt that depends on no message. The whole text is then the sum of
texts that can be remembered. Whatever is not understood counts as not proven.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, TemplateError, nodes

_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_TURN_KEYS = ("role", "content")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_GIVEN_NAMES = {
    "add_generation_prompt",
    "cycler",
    "dict",
    "enable_thinking",
    "joiner",
    "lipsum",
    "loop",
    "messages",
    "namespace",
    "raise_exception",
    "range",
    "strftime_now",
}
"""Names that a template finds besides those of special tokens, such as `bos_token`."""
_PURE_FUNCTIONS = ("raise_exception", "range", "dict")
_PURE_NODES = (
    nodes.Add,
    nodes.And,
    nodes.Compare,
    nodes.Concat,
    nodes.Const,
    nodes.Dict,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Keyword,
    nodes.List,
    nodes.Mod,
    nodes.Mul,
    nodes.Neg,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Pair,
    nodes.Slice,
    nodes.Sub,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)


class Unproven(Exception):
    """The template may do something that is not what was to be proven."""


class _Mark:
    """A value that is not known, or known not to be there."""

    def __bool__(self) -> bool:
        return False


UNKNOWN, _ABSENT = _Mark(), _Mark()


def writes_turn_by_turn(template: str) -> bool:
    """Whether the Jinja source `template` is proven to write each later message by itself."""
    try:
        loop_over_messages(template)
    except (TemplateError, Unproven, RecursionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class MessageLoop:
    """The loop of a template that is proven to write turn by turn."""

    body: Sequence[nodes.Node]
    target: str
    """What the message is called in it."""
    known: Mapping[str, Any]
    """Names whose value is the same in every conversation."""


def loop_over_messages(template: str) -> MessageLoop:
    """The loop of `template`.

    Raises:
        Unproven: it is not proven to write turn by turn.
        jinja2.TemplateError, RecursionError: it cannot be parsed.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return _Proof(environment.parse(_GENERATION_TAG.sub("", template))).run()


class _Proof:
    """Walks the statements before, in and behind the one loop over the messages."""

    def __init__(self, tree: nodes.Template) -> None:
        self._statements = tree.body
        self._lists = {"messages"}
        """Names of the list of messages, or of its rest behind the first."""
        self._rests: set[str] = set()
        """Those of them that may be the rest."""
        self._unsafe: set[str] = {"strftime_now", "cycler", "joiner", "lipsum", "namespace"}
        """Names whose value may depend on the messages, the time, or what was done before."""
        self._known = _never_given(tree)
        """Values that are the same in every conversation."""

    def run(self) -> MessageLoop:
        loops = [n for n, s in enumerate(self._statements) if isinstance(s, nodes.For)]
        if len(loops) != 1:
            raise Unproven
        for statement in self._statements[: loops[0]]:
            self._before(statement, unsafe=False, by_role=True)
        loop = self._statements[loops[0]]
        if not isinstance(loop, nodes.For) or not isinstance(loop.target, nodes.Name):
            raise Unproven
        if loop.test is not None or loop.else_ or loop.recursive or not self._is_list(loop.iter):
            raise Unproven
        for role in ("user", "assistant"):
            _Turn(self._known, self._lists, self._unsafe, loop.target.name, role).block(loop.body)
        for statement in self._statements[loops[0] + 1 :]:
            self._behind(statement)
        return MessageLoop(loop.body, loop.target.name, self._known)

    def _is_list(self, node: nodes.Node) -> bool:
        """Whether `node` is the list of messages, or its rest behind the first."""
        if isinstance(node, nodes.Getitem) and _is_rest(node.arg):
            node = node.node
            # Without more than one message the loop begins at the second at the latest.
            if isinstance(node, nodes.Name) and node.name in self._rests:
                raise Unproven
        return isinstance(node, nodes.Name) and node.name in self._lists

    # Before the loop: anything that looks at no message but the first

    def _before(self, statement: nodes.Node, *, unsafe: bool, by_role: bool) -> None:
        match statement:
            case nodes.Macro():
                self._unsafe.add(statement.name)
            case nodes.Output():
                for node in statement.nodes:
                    self._looks_at_first_only(node)
            case nodes.If():
                self._before_if(statement, unsafe=unsafe, by_role=by_role)
            case nodes.Assign():
                self._before_assign(statement, unsafe=unsafe, by_role=by_role)
            case _:
                raise Unproven

    def _before_if(self, statement: nodes.If, *, unsafe: bool, by_role: bool) -> None:
        value = Value(self._known).of(statement.test)
        if value is not UNKNOWN:
            for inner in taken(statement, bool(value)):
                self._before(inner, unsafe=unsafe, by_role=by_role)
            return
        self._looks_at_first_only(statement.test)
        by_role = by_role and self._asks_for_system(statement.test)
        for inner in (*statement.body, *statement.elif_, *statement.else_):
            # What is assigned in either branch is not known behind them.
            self._before(inner, unsafe=True, by_role=by_role)

    def _before_assign(self, statement: nodes.Assign, *, unsafe: bool, by_role: bool) -> None:
        if not isinstance(statement.target, nodes.Name):
            raise Unproven
        name, value = statement.target.name, statement.node
        self._known.pop(name, None)
        if self._is_list(value):
            # Which index a message has in the loop may depend on the first role, no more.
            if not by_role:
                raise Unproven
            if isinstance(value, nodes.Getitem) or (
                isinstance(value, nodes.Name) and value.name in self._rests
            ):
                self._rests.add(name)
            self._lists.add(name)
            return
        if name in self._lists:
            raise Unproven
        self._looks_at_first_only(value)
        constant = Value(self._known).of(value)
        if constant is UNKNOWN or unsafe:
            self._unsafe.add(name)
        else:
            self._known[name] = constant

    def _is_first(self, node: nodes.Node) -> bool:
        """Whether `node` is the first message of the list."""
        if not isinstance(node, nodes.Getitem) or not isinstance(node.node, nodes.Name):
            return False
        first = isinstance(node.arg, nodes.Const) and node.arg.value == 0
        return first and node.node.name in self._lists - self._rests

    def _asks_for_system(self, test: nodes.Node) -> bool:
        """Whether `test` is `messages[0]['role'] == 'system'`."""
        if not isinstance(test, nodes.Compare) or [o.op for o in test.ops] != ["eq"]:
            return False
        role, other = test.expr, test.ops[0].expr
        is_system = isinstance(other, nodes.Const) and other.value == "system"
        if isinstance(role, nodes.Getattr):
            return is_system and role.attr == "role" and self._is_first(role.node)
        if not isinstance(role, nodes.Getitem) or not isinstance(role.arg, nodes.Const):
            return False
        return is_system and role.arg.value == "role" and self._is_first(role.node)

    def _looks_at_first_only(self, node: nodes.Node) -> None:
        if self._is_first(node):
            return
        if isinstance(node, nodes.Name) and node.name in {*self._lists, "add_generation_prompt"}:
            raise Unproven
        for child in node.iter_child_nodes():
            self._looks_at_first_only(child)

    # Behind the loop: the generation prompt, and nothing where none is asked for

    def _behind(self, statement: nodes.Node) -> None:
        if not isinstance(statement, nodes.If) or statement.elif_ or statement.else_:
            raise Unproven
        without = {**self._known, "add_generation_prompt": False}
        value = Value(without).of(statement.test)
        if value is UNKNOWN or value:
            raise Unproven
        check = _Turn(self._known, self._lists, self._unsafe, "", "")
        check.expression(statement.test)
        check.block(statement.body)


class Value:
    """Values of expressions as far as they are the same in every conversation."""

    def __init__(self, known: dict[str, Any], target: str = "", role: str = "") -> None:
        self._known = known
        self._target, self._role = target, role
        self.in_loop = bool(target)
        """Whether `loop` is the loop over the messages, behind the first message."""

    def forget(self, name: str) -> None:
        """`name` was assigned something else."""
        self._known.pop(name, None)

    def of(self, node: nodes.Node) -> Any:
        """The value of `node`, `_ABSENT` for what is undefined, or `UNKNOWN`."""
        match node:
            case nodes.Const():
                return node.value
            case nodes.Name():
                return self._known.get(node.name, UNKNOWN)
            case nodes.Getattr():
                return self._field(node.node, node.attr)
            case nodes.Getitem() if isinstance(node.arg, nodes.Const):
                return self._field(node.node, node.arg.value)
            case nodes.Test():
                return self._test(node)
            case nodes.Not():
                value = self.of(node.node)
                return UNKNOWN if value is UNKNOWN else not value
            case nodes.And() | nodes.Or():
                return self._either(node)
            case nodes.Compare() if len(node.ops) == 1:
                return self._compare(node.expr, node.ops[0].op, node.ops[0].expr)
        return UNKNOWN

    def is_turn(self, node: nodes.Node) -> bool:
        return bool(self._target) and isinstance(node, nodes.Name) and node.name == self._target

    def _is_loop(self, node: nodes.Node) -> bool:
        return self.in_loop and isinstance(node, nodes.Name) and node.name == "loop"

    def _field(self, node: nodes.Node, key: Any) -> Any:
        if self._is_loop(node) and key == "first":
            return False
        if not self.is_turn(node) or not isinstance(key, str):
            return UNKNOWN
        if key == "role":
            return self._role
        known = {*_TURN_KEYS, *_REASONING_KEYS, *dir(dict)}
        return UNKNOWN if key in known else _ABSENT

    def _test(self, node: nodes.Test) -> Any:
        if node.name == "string" and self.is_content(node.node):
            return True
        value = self.of(node.node)
        if value is UNKNOWN or node.name not in ("defined", "undefined", "none"):
            return UNKNOWN
        if node.name == "none":
            return value is None
        return (value is not _ABSENT) == (node.name == "defined")

    def is_content(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.Getattr):
            return self.is_turn(node.node) and node.attr == "content"
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            return self.is_turn(node.node) and node.arg.value == "content"
        return False

    def _either(self, node: nodes.And | nodes.Or) -> Any:
        decides = isinstance(node, nodes.Or)
        left, right = self.of(node.left), self.of(node.right)
        if left is not UNKNOWN:
            return left if bool(left) == decides else right
        # `unknown and False`: false either way; its exact value does not matter to a test.
        if right is not UNKNOWN and not right and not decides:
            return False
        return UNKNOWN

    def _compare(self, left: nodes.Node, operator: str, right: nodes.Node) -> Any:
        if operator in ("in", "notin") and self.is_turn(right):
            key = self.of(left)
            if isinstance(key, str) and key not in _REASONING_KEYS:
                return (key in _TURN_KEYS) == (operator == "in")
            return UNKNOWN
        if isinstance(left, nodes.Getattr) and self._is_loop(left.node):
            first = {"index0": 0, "index": 1}.get(left.attr)
            if first is not None and isinstance(right, nodes.Const) and right.value == first:
                return {"eq": False, "ne": True, "gt": True, "lteq": False}.get(operator, UNKNOWN)
        values = self.of(left), self.of(right)
        if operator in ("eq", "ne") and all(isinstance(value, str) for value in values):
            return (values[0] == values[1]) == (operator == "eq")
        return UNKNOWN


class _Turn:
    """Checks that what is written for one message behind the first depends on it alone."""

    def __init__(
        self,
        known: dict[str, Any],
        lists: set[str],
        unsafe: set[str],
        target: str,
        role: str,
    ) -> None:
        self._unsafe = {*lists, *unsafe}
        if target:
            self._unsafe.add("add_generation_prompt")
        self._value = Value(dict(known), target, role)
        self._safe: set[str] = {target}
        """Names that were certainly assigned for this message."""
        self._depth = 0

    def block(self, statements: Sequence[nodes.Node]) -> None:
        """Check statements in their order."""
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: nodes.Node) -> None:
        match statement:
            case nodes.Output():
                for node in statement.nodes:
                    self.expression(node)
            case nodes.If():
                self._if(statement)
            case nodes.Assign() if isinstance(statement.target, nodes.Name):
                self.expression(statement.node)
                self._value.forget(statement.target.name)
                if self._depth == 0:
                    self._safe.add(statement.target.name)
            case nodes.For():
                self._for(statement)
            case nodes.Continue():
                pass
            case _:
                raise Unproven

    def _if(self, statement: nodes.If) -> None:
        value = self._value.of(statement.test)
        if value is not UNKNOWN:
            self.block(taken(statement, bool(value)))
            return
        self.expression(statement.test)
        self._depth += 1
        self.block([*statement.body, *statement.elif_, *statement.else_])
        self._depth -= 1

    def _for(self, statement: nodes.For) -> None:
        if not isinstance(statement.target, nodes.Name) or statement.recursive:
            raise Unproven
        self.expression(statement.iter)
        outer, safe = self._value.in_loop, set(self._safe)
        self._value.in_loop = False
        self._safe |= {statement.target.name, "loop"}
        self._depth += 1
        if statement.test is not None:
            self.expression(statement.test)
        self.block([*statement.body, *statement.else_])
        self._depth -= 1
        self._value.in_loop, self._safe = outer, safe

    def expression(self, node: nodes.Node) -> None:
        """Check an expression; one whose value is always the same is let pass."""
        if self._value.of(node) is not UNKNOWN or _is_parity(node):
            return
        match node:
            case nodes.Name():
                if node.name not in self._safe and node.name in {*self._unsafe, "loop"}:
                    raise Unproven
                return
            case nodes.CondExpr():
                value = self._value.of(node.test)
                if value is not UNKNOWN:
                    taken = node.expr1 if value else node.expr2
                    if taken is not None:
                        self.expression(taken)
                    return
            case nodes.Filter():
                if node.node is None or node.name == "random":
                    raise Unproven
            case nodes.Call():
                if isinstance(node.node, nodes.Name) and node.node.name not in _PURE_FUNCTIONS:
                    raise Unproven
            case nodes.Getattr() | nodes.Getitem():
                pass
            case _ if not isinstance(node, _PURE_NODES):
                raise Unproven
        for child in node.iter_child_nodes():
            self.expression(child)


def _never_given(tree: nodes.Template) -> dict[str, Any]:
    """The values of the names that this program never passes to a template."""
    names = {node.name for node in tree.find_all(nodes.Name)}
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    macros = {node.name for node in tree.find_all(nodes.Macro)}
    absent = {
        name
        for name in names - stored - macros - _GIVEN_NAMES
        if not name.endswith(("_token", "_tokens"))
    }
    return {**dict.fromkeys(absent, _ABSENT), "tools": None, "documents": None}


def taken(statement: nodes.If, value: bool) -> Sequence[nodes.Node]:
    """The statements that run when the test of an `if` is `value`."""
    if value:
        return statement.body
    if statement.elif_:
        first, *others = statement.elif_
        rest = nodes.If(first.test, first.body, others, statement.else_, lineno=first.lineno)
        return [rest]
    return statement.else_


def _is_rest(node: nodes.Node) -> bool:
    """Whether `node` is the slice `[1:]`."""
    return (
        isinstance(node, nodes.Slice)
        and isinstance(node.start, nodes.Const)
        and node.start.value == 1
        and node.stop is None
        and node.step is None
    )


def _is_parity(node: nodes.Node) -> bool:
    """Whether `node` is `loop.index0 % 2`, which alternating roles decide."""
    return (
        isinstance(node, nodes.Mod)
        and isinstance(node.left, nodes.Getattr)
        and isinstance(node.left.node, nodes.Name)
        and node.left.node.name == "loop"
        and node.left.attr in ("index0", "index")
        and isinstance(node.right, nodes.Const)
        and node.right.value == 2
    )
