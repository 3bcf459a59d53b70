"""Letters that an answer may choose: the constant of integration, the number of periods, the argument."""

from __future__ import annotations

from a2r_train.verify.expression import Node

_WHOLE = {"k", "m", "n"}  # letters for any whole number
_VARIABLES = ("x", "t", "u", "v", "w", "y", "z", "r", "s", r"\theta")  # of integration


def constant_in(node: Node) -> str | None:
    """The constant of integration in a sum."""
    found = [part for part in node.parts if part.kind == "sym" and part.text in ("C", "c", "K")]
    if node.kind != "add" or len(found) != 1:
        return None
    others, name = Node("add", tuple(part for part in node.parts if part is not found[0])), found[0].text
    of_variable = any(mentions(others, variable) for variable in _VARIABLES)
    return name if of_variable and not mentions(others, name) else None


def period_in(node: Node) -> str | None:
    """The letter that counts the periods, as n in `2 pi n`; None unless it is the only letter besides pi."""
    letters = symbols(node)
    found = letters - {r"\pi"}
    return found.pop() if r"\pi" in letters and len(found) == 1 and found <= _WHOLE else None


def symbols(node: Node) -> set[str]:
    """All symbols of a tree, and its opaque parts as text."""
    own = {node.text} if node.kind in ("sym", "opaque") else set[str]()
    return own.union(*map(symbols, node.parts))


def mentions(node: Node, name: str) -> bool:
    return node.text == name or node.kind == "opaque" or any(mentions(part, name) for part in node.parts)


def renamed(node: Node, old: str, new: str) -> Node:
    if node.kind == "sym":
        return Node("sym", text=new) if node.text == old else node
    return Node(node.kind, tuple(renamed(part, old, new) for part in node.parts), node.text)
