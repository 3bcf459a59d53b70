"""`a2r solve --file`: questions of a file, with references or without, answered a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from a2r_train.errors import InputError
from a2r_train.inference.two_stage import TwoStage
from a2r_train.records import Problem, rows, value_of
from a2r_train.verify import check_verifier

BATCH = 256  # questions; the lines of a batch are written together


@dataclass(frozen=True)
class Question:
    """A problem whose answer nobody needs to know, and the references that came with it, if any."""

    problem: Problem
    references: list[str]


def read_questions(path: str, columns: dict[str, str]) -> list[Question]:
    """Rows of `problem` or `question`, and if they have it `id`, `verifier` and `references`; the number of a
    row is its id.

    Raises InputError for a missing file or column, a wrong type, an unknown verifier, and for references in
    some rows alone.
    """
    found = [_question(row, place, columns, number) for number, (place, row) in enumerate(rows(path))]
    if not found:
        raise InputError(f"{path}: no rows; expected at least one problem")
    for verifier in {question.problem.verifier for question in found}:
        check_verifier(verifier)
    if len({bool(question.references) for question in found}) > 1:
        raise InputError(f"{path}: references in some rows alone; expected them in all rows, or in none")
    return found


def _question(row: dict[str, Any], place: str, columns: dict[str, str], number: int) -> Question:
    values = {
        name: value_of(name, "str", row, place, columns, True) for name in ("problem", "id", "verifier")
    }
    if "problem" not in columns and values["problem"] is None:
        values["problem"] = value_of("question", "str", row, place, {}, True)
    if values["problem"] is not None and not values["problem"].strip():
        raise InputError(f"{place}: the problem is empty; every row needs one")
    if values["problem"] is None:
        missing, near = columns.get("problem", "problem"), ", ".join(sorted(map(str, row)))
        raise InputError(f"{place}: no column {missing!r}; the columns are {near} (map names with --columns)")
    given = {name: value for name, value in values.items() if value}
    references = value_of("references", "list[str]", row, place, columns, True)
    return Question(replace(Problem(str(number), "", ""), **given), references or [])


def answers(loop: TwoStage, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """The rows of the output, in the order of the questions: the id, and what `Answer` holds."""
    for at in range(0, len(questions), BATCH):
        batch = questions[at : at + BATCH]
        problems = [question.problem for question in batch]
        if batch[0].references:
            made = loop.synthesise_all(problems, [question.references for question in batch])
        else:
            made = loop.solve_all(problems)
        for problem, answer in zip(problems, made, strict=True):
            yield {"id": problem.id, **asdict(answer)}
