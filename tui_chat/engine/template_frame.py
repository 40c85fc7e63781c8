"""Proves that a chat template writes the content of a message as it is, or trimmed, and that
nothing else of what it writes depends on the content.

The text of such a message is a frame around its content; a draft is then written without Jinja.
Whatever is not understood counts as not proven.
"""

from collections.abc import Sequence

from jinja2 import TemplateError, nodes

from tui_chat.engine.template_proof import (
    UNKNOWN,
    MessageLoop,
    Unproven,
    Value,
    loop_over_messages,
    taken,
)


def frames_content(template: str, role: str) -> bool:
    """Whether the Jinja source `template` is proven to frame later messages of `role` so."""
    try:
        loop = loop_over_messages(template)
        _Frame(loop, role).block(loop.body)
    except (TemplateError, Unproven, RecursionError):
        return False
    return True


class _Frame:
    """Checks that the content is written and used for nothing else."""

    def __init__(self, loop: MessageLoop, role: str) -> None:
        self._value = Value(dict(loop.known), loop.target, role)
        self._holders: set[str] = set()
        """Names of texts that may hold the content."""

    def block(self, statements: Sequence[nodes.Node]) -> None:
        """Check statements in their order."""
        for statement in statements:
            match statement:
                case nodes.Output():
                    for node in statement.nodes:
                        self._written(node)
                case nodes.Assign() if isinstance(statement.target, nodes.Name):
                    self._written(statement.node)
                    if self._depends(statement.node):
                        self._holders.add(statement.target.name)
                    self._value.forget(statement.target.name)
                case nodes.If():
                    self._if(statement)
                case nodes.For():
                    self._fixed(statement.iter)
                    if statement.test is not None:
                        self._fixed(statement.test)
                    outer, self._value.in_loop = self._value.in_loop, False
                    self.block([*statement.body, *statement.else_])
                    self._value.in_loop = outer
                case nodes.Continue():
                    pass
                case _:
                    raise Unproven

    def _if(self, statement: nodes.If) -> None:
        value = self._value.of(statement.test)
        if value is not UNKNOWN:
            self.block(taken(statement, bool(value)))
            return
        self._fixed(statement.test)
        # A name that holds the content in one branch may hold it behind both.
        self.block([*statement.body, *statement.elif_, *statement.else_])

    def _fixed(self, node: nodes.Node) -> None:
        if self._depends(node):
            raise Unproven

    def _written(self, node: nodes.Node) -> None:
        """Check that `node` is a text that the content at most is a part of, whole or trimmed."""
        if not self._depends(node) or self._value.is_content(node):
            return
        match node:
            case nodes.Name() if node.name in self._holders:
                return
            case nodes.Add():
                self._written(node.left)
                self._written(node.right)
            case nodes.Concat():
                for part in node.nodes:
                    self._written(part)
            case nodes.CondExpr():
                self._fixed(node.test)
                self._written(node.expr1)
                if node.expr2 is not None:
                    self._written(node.expr2)
            case _ if not self._is_trimmed(node):
                raise Unproven

    def _is_trimmed(self, node: nodes.Node) -> bool:
        """Whether `node` is `content | trim` or `content.strip()`."""
        match node:
            case nodes.Filter(name="trim", node=inner) if inner is not None:
                plain = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
                return plain and self._value.is_content(inner)
            case nodes.Call(node=nodes.Getattr(attr="strip", node=inner)):
                plain = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
                return plain and self._value.is_content(inner)
        return False

    def _depends(self, node: nodes.Node) -> bool:
        """Whether the value of `node` may depend on the content."""
        if self._value.is_content(node):
            return True
        if self._value.of(node) is not UNKNOWN:
            return False
        match node:
            case nodes.Name():
                # The message itself has the content.
                return node.name in self._holders or self._value.is_turn(node)
            case nodes.Getattr() if self._value.is_turn(node.node):
                return node.attr in _METHODS
            case nodes.Getitem() if self._value.is_turn(node.node):
                return not isinstance(node.arg, nodes.Const) or node.arg.value in _METHODS
            case nodes.Compare() if self._asks_for_field(node):
                return False
        return any(map(self._depends, node.iter_child_nodes()))

    def _asks_for_field(self, node: nodes.Compare) -> bool:
        """Whether `node` is `'name' in message`."""
        return (
            isinstance(node.expr, nodes.Const)
            and len(node.ops) == 1
            and node.ops[0].op in ("in", "notin")
            and self._value.is_turn(node.ops[0].expr)
        )


_METHODS = frozenset(dir(dict))
"""What is no field of a message, but may give all of them."""
