"""The final answer of a worked solution, where GSM8K and MATH keep it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from a2r_train.errors import InputError
from a2r_train.verify.extract import candidates, extract

if TYPE_CHECKING:
    from a2r_train.data.read import Row

_IN_THOUSANDS = re.compile(r"[^\d,()\[\]{}]*\d{1,3}(?:,\d{3})+(?:\.\d+)?[^\d,()\[\]{}]*")  # one number
_LAST_LINE = re.compile(r"^####[ \t]+(\S[^\n]*)\s*\Z", re.MULTILINE)
SOLUTION = "solution"  # the column of MATH and its kin


def gold_of(row: Row) -> str:
    """The gold answer that a row holds. Raises InputError for a row without one."""
    gold = final_answer(row.required_text("answer"), row.column("problem"), row.column("answer"))
    if not gold:
        raise InputError(f"{row.place}: field 'answer' is empty after its ####; every problem needs one")
    return gold


def boxes_of(row: Row) -> list[str]:
    """The different boxes of a solution whose gold is the last of several; else nothing."""
    column = row.column("answer")
    gold = row.text("answer") if column.lower() == SOLUTION else ""
    if not gold or gold.count(r"\boxed") < 2 or _LAST_LINE.search(gold):
        return []
    found = candidates(gold, "math")
    return found if len(found) > 1 else []


def final_answer(gold: str, problem: str, answer: str) -> str:
    r"""The answer that follows the last `####` of GSM8K's own columns, "" if nothing does. In a column
    `solution`, what its last line has after `####`, or what the last `\boxed{}` holds. Else the gold itself.

    problem, answer: the columns that hold them. Other columns are left alone: a program or a verifier of
    one's own may want the whole text.
    """
    if (problem, answer) == ("question", "answer") and "####" in gold:
        return _without_commas(gold.rpartition("####")[2].strip(" \r\n"))  # a form feed is a slip
    if answer.lower() != SOLUTION:
        return gold
    if found := _LAST_LINE.search(gold):
        return _without_commas(found[1].strip())
    return (extract(gold) or gold) if r"\boxed" in gold else gold


def _without_commas(answer: str) -> str:
    return answer.replace(",", "") if _IN_THOUSANDS.fullmatch(answer) else answer
