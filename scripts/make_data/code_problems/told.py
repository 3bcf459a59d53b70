"""How these files define a problem: a reference solution whose docstring is the text, and its calls."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROBLEMS: list[Told] = []


@dataclass(frozen=True)
class Told:
    """One problem: the text, the reference solution, and the arguments of its hidden tests."""

    function: Callable[..., Any]
    calls: tuple[tuple[Any, ...], ...]

    @property
    def text(self) -> str:
        return " ".join((self.function.__doc__ or "").split())

    @property
    def code(self) -> str:
        """The source code without decorator and docstring."""
        lines = textwrap.dedent(inspect.getsource(self.function)).splitlines()
        begin = next(at for at, line in enumerate(lines) if line.startswith("def "))
        ends = [at for at, line in enumerate(lines) if '"""' in line]
        last = ends[0] if lines[ends[0]].count('"""') == 2 else ends[1]
        return "\n".join([lines[begin], *lines[last + 1 :]])

    @property
    def tests(self) -> list[str]:
        name = self.function.__name__
        given = [(", ".join(map(repr, call)), self.function(*call)) for call in self.calls]
        return [f"assert {name}({arguments}) == {_literal(value)}" for arguments, value in given]


def _literal(value: Any) -> str:
    """Like `repr`, but with a stable order for sets."""
    return f"{{{', '.join(map(repr, sorted(value)))}}}" if isinstance(value, set) and value else repr(value)


def called(*calls: tuple[Any, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a problem."""

    def tell(function: Callable[..., Any]) -> Callable[..., Any]:
        PROBLEMS.append(Told(function, calls))
        return function

    return tell
