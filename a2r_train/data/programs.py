"""Problems that a program solves, in the shape of MBPP (arXiv 2108.07732): a text, a reference solution and
asserts.

The prompt gets the text and the signature but no test: with a test, one could choose among programs by
running it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from a2r_train.errors import InputError
from a2r_train.records import Problem
from a2r_train.verify import programs

TEXTS = ("text", "prompt")  # of MBPP, and of its sanitized part
SOLUTION, TESTS, SETUP, IDENTITY = "code", programs.TESTS, programs.SETUP, "task_id"
PROBLEM = "{text}\n\nThe function is `{signature}`."


def is_program(values: Mapping[str, Any]) -> bool:
    """Whether a row is of this shape, and of no other."""
    return SOLUTION in values and TESTS in values and "answer" not in values


def columns_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The columns of such a row that hold the problem and its gold answer."""
    return {"problem": next((name for name in TEXTS if values.get(name)), TEXTS[0]), "answer": SOLUTION}


def program_of(values: Mapping[str, Any], identity: str, source: str, place: str) -> Problem | None:
    """The problem of such a row; None if none of its tests can be judged separately from the program.

    Raises InputError for a row without text or solution, and for tests that are not Python.
    """
    text = values.get(columns_of(values)["problem"])
    values = {**values, TESTS: _listed(values[TESTS])}
    solution, given = values[SOLUTION], values[TESTS]
    for name, value in ((TEXTS[0], text), (SOLUTION, solution)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{place}: field {name!r} has no text; every problem needs one")
    kept = {name: values[name] for name in (TESTS, SETUP, *programs.LIMITS) if values.get(name)}
    solution = "\n".join(str(solution).splitlines())
    try:
        tests = programs.hidden_tests({"metadata": kept})
    except programs.NoTest:
        return None
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    signature = programs.signature(solution, tests.function)
    if not signature:
        raise InputError(
            f"{place}: field {SOLUTION!r} does not define {tests.function!r}, which {given[0]!r} calls"
        )
    shown = PROBLEM.format(text=str(text).strip(), signature=signature)
    known = values.get(IDENTITY, values.get("id"))
    return Problem(
        identity if known is None else str(known), shown, solution, programs.NAME, source, metadata=kept
    )


def _listed(tests: Any) -> Any:
    """The tests of a table, where a list is JSON; anything else is returned as it is."""
    try:
        return json.loads(tests) if isinstance(tests, str) else tests
    except ValueError:
        return tests
