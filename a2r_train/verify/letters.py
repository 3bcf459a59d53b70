r"""Letters side by side: products such as `ab`, outcomes such as HT, segments such as `\overline{AB}`."""

from __future__ import annotations

from a2r_train.verify.expression import Node
from a2r_train.verify.kinds import Quantity, Reading


def is_product(reading: Reading) -> bool:
    """Whether it is a product of letters, which may be a word."""
    return isinstance(reading, Quantity) and len(_factors(reading.node)) > 1


def is_double(reading: Reading) -> bool:
    """Whether it is a capital letter twice, such as HH, and so an outcome of two draws."""
    letters = _factors(reading.node) if isinstance(reading, Quantity) else ""
    return len(letters) > 1 and letters.isupper() and len(set(letters)) == 1


def _factors(node: Node) -> str:
    """The letters of a product of single letters in their order; "" for anything else."""
    if node.kind == "sym":
        return node.text if len(node.text) == 1 else ""
    parts = [_factors(part) for part in node.parts] if node.kind == "mul" else [""]
    return "".join(parts) if all(parts) else ""


def figure(node: Node) -> str:
    r"""The letters of `\overline{AB}`, `\angle B`; an answer may leave the sign out. `\overline{A}` is not A:
    it may be a complement or a mean.
    """
    if node.kind != "sym" or not node.text.startswith(("\\overline ", "\\angle ", "\\triangle ")):
        return ""
    sign, _, letters = node.text.partition(" ")
    if sign == r"\overline" and len(letters) == 1:
        return ""
    return letters if letters.isupper() and letters.isalpha() else ""


def letters(node: Node) -> str:
    """`AB` as letters, in alphabetical order if there are two."""
    if node.kind == "sym":
        return node.text
    if node.kind != "mul":
        return ""
    parts = [letters(part) for part in node.parts]
    joined = "".join(parts) if all(parts) else ""
    return min(joined, joined[::-1]) if joined.isalpha() and joined.isupper() else ""
