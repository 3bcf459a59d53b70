"""`a2r solve --file`: questions from a file, with or without references, answered a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from a2r_train.data.options import options_of, with_options
from a2r_train.data.read import Columns, Row
from a2r_train.errors import InputError
from a2r_train.inference.two_stage import TwoStage
from a2r_train.paths import paths_in
from a2r_train.records import Problem
from a2r_train.verify import check_verifier

BATCH = 256  # questions; the output lines of a batch are written together


@dataclass(frozen=True)
class Question:
    """A problem, whose answer need not be known, and the references that came with it, if any."""

    problem: Problem
    references: list[str]


def read_questions(path: str, columns: Columns) -> list[Question]:
    """Read rows of `problem` and, if present, `id`, `verifier` and `references`; the id defaults to the row
    number.

    Raises InputError for a missing file or column, a wrong type, an unknown verifier, or references in only
    some of the rows.
    """
    questions = [
        _question(row, str(number))
        for number, row in enumerate(chain.from_iterable(map(columns.rows, paths_in(path))))
    ]
    columns.check_met()
    if not questions:
        raise InputError(f"{path}: no rows; expected at least one problem")
    for verifier in {question.problem.verifier for question in questions}:
        check_verifier(verifier)
    if len({bool(question.references) for question in questions}) > 1:
        raise InputError(f"{path}: only some rows have references; expected them in all rows, or in none")
    return questions


def _question(row: Row, number: str) -> Question:
    text, verifier = row.required_text("problem"), row.text("verifier")
    if options := options_of(row.values, row.names.get("options", ""), row.place):
        text, verifier = with_options(text, options), verifier or "multiple_choice"
    return Question(
        Problem(row.text("id") or number, text, "", verifier or "math"),
        row.value("references", "list[str]") or [],
    )


def answers(loop: TwoStage, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """The output rows, in the order of the questions: the id, and the fields of `Answer`."""
    for at in range(0, len(questions), BATCH):
        batch = questions[at : at + BATCH]
        problems = [question.problem for question in batch]
        if batch[0].references:
            made = loop.synthesise_all(problems, [question.references for question in batch])
        else:
            made = loop.solve_all(problems)
        for problem, answer in zip(problems, made, strict=True):
            yield {"id": problem.id, **asdict(answer)}
