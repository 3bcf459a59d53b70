"""What only a whole set tells of its golds: are they letters, texts of options, or their indices? How many
are the last of several boxes?

A single gold can be ambiguous: if the options are blood types, `A` is a letter and also the text of an
option. The whole set shows which is meant.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from a2r_train.data.options import Options, options_of, ways_of
from a2r_train.data.worked import boxes_of, gold_of
from a2r_train.errors import InputError
from a2r_train.records import Problem

if TYPE_CHECKING:
    from a2r_train.data.read import Columns, Row

FEWEST_INDICES = 12  # by chance 3 in 100 such sets of four options have no 0
TEXT, INDEX, BOTH = "text", "index", "both"
LABEL, CLASH = "letter", "letter or text"
log = logging.getLogger(__name__)


@dataclass
class Choices:
    """What the rows of one set say. It can be written as JSON, and the results of several processes added.

    counts: answers that are only a text, only an index, or both for different options; only a letter, or the
    letter of one option and the text of another. examples: the first of each kind, as [place, answer, letter
    of the text, letter of the index or its own letter]. sizes: rows by number of options.
    from_0: indices in rows that do not number their options; zeros: how many of these are 0.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    from_0: int = 0
    zeros: int = 0
    numbers: int = 0  # texts of options that look like indices
    boxed: int = 0  # solutions with several different boxes
    first_boxed: str = ""  # the first of these: its place and its boxes

    @property
    def by_text(self) -> bool:
        """Whether answers that are a letter and a text are read as texts: others are texts, and none is only
        a letter.
        """
        return CLASH in self.counts and TEXT in self.counts and LABEL not in self.counts

    def add(self, place: str, answer: str, options: Options) -> str:
        """Add one row: its answer as given, and its options. Returns its kind, "" if it tells nothing."""
        size = str(len(options))
        self.sizes[size] = self.sizes.get(size, 0) + 1
        ways = ways_of(answer, options)
        if ways.text == (ways.label or ways.index):
            return ""
        looks = answer.strip().isdecimal() and int(answer) <= len(options)  # like an index, also from 1
        kind = (BOTH if looks else TEXT) if ways.text else INDEX
        if ways.label:
            kind = CLASH if ways.text else LABEL
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.examples.setdefault(kind, [place, answer.strip(), ways.text, ways.label or ways.index])
        self.numbers += kind != INDEX and answer.strip().isdigit()
        if kind == INDEX and not options.first:
            self.from_0 += 1
            self.zeros += int(answer) == 0
        return kind

    def include(self, other: Choices) -> None:
        """Add the counts of a later part of the set."""
        for mine, more in ((self.counts, other.counts), (self.sizes, other.sizes)):
            for key, count in more.items():
                mine[key] = mine.get(key, 0) + count
        self.examples = {**other.examples, **self.examples}
        self.from_0 += other.from_0
        self.zeros += other.zeros
        self.numbers += other.numbers
        self.boxed += other.boxed
        self.first_boxed = self.first_boxed or other.first_boxed

    def check(self, path: str) -> None:
        """Log how the answers were read, and how many rows have fewer options than the others.

        Raises InputError for ambiguous answers.
        """
        if self.boxed:
            log.warning(
                "%s: %d solutions hold several different boxes, as at %s; the last one is the gold, so "
                "if that is wrong, give the answers in a column of their own",
                path, self.boxed, self.first_boxed,
            )  # fmt: skip
        self._check_kinds()
        self._check_letters()
        if self.from_0 >= FEWEST_INDICES and not self.zeros:
            raise InputError(
                f"{path}: {self.from_0} answers are indices of options, and none of them is 0; indices "
                "count from 0, so give letters, or subtract 1"
            )
        if self.from_0:
            _, answer, _, letter = self.examples[INDEX]
            log.info("%s: answers are indices from 0; %s is option %s", path, answer, letter)
        elif self.numbers or self.by_text:
            _, answer, letter, _ = self.examples.get(BOTH) or self.examples.get(CLASH) or self.examples[TEXT]
            log.info("%s: answers are texts of options; %r is option %s", path, answer, letter)
        most, rows = max(map(int, self.sizes), default=0), sum(self.sizes.values())
        if fewer := rows - self.sizes.get(str(most), 0):
            log.info("%s: %d of %d rows have fewer than %d options", path, fewer, rows, most)

    def _check_kinds(self) -> None:
        """Answers that are only a text, or only an index, settle how ambiguous ones are meant."""
        both, text, index = (self.examples.get(kind) for kind in (BOTH, TEXT, INDEX))
        if both and not text:
            place, answer, by_text, by_index = both
            counts = f"the index of option {by_index}" if by_index else "may be an index that counts from 1"
            raise InputError(
                f"{place}: answer {answer} is the text of option {by_text} and {counts}, "
                "and no other row tells which is meant; give letters"
            )
        if text and index:
            raise InputError(
                f"{index[0]}: answer {index[1]} is only the index of option {index[3]}, but at {text[0]} "
                f"answer {text[1][:40]!r} is the text of option {text[2]}; give letters in all rows"
            )

    def _check_letters(self) -> None:
        """Answers that are only a text, or only a letter, settle how those are meant that are both."""
        if CLASH not in self.counts or (TEXT in self.counts) != (LABEL in self.counts):
            return
        place, answer, by_text, letter = self.examples[CLASH]
        others = "other rows give letters as well as texts" if TEXT in self.counts else "no other row tells"
        raise InputError(
            f"{place}: answer {answer} is the letter of option {letter} and the text of option {by_text}, "
            f"and {others}; give letters, each as ({letter})"
        )


def note_choice(choices: Choices, row: Row, record: object) -> str:
    """Record what the row of a problem tells about its set; returns the kind of its answer if it has
    options.
    """
    if isinstance(record, Problem) and (boxes := boxes_of(row)):
        choices.boxed += 1
        choices.first_boxed = choices.first_boxed or f"{row.place} ({', '.join(boxes)[:80]})"
    return _noted(choices, row) if isinstance(record, Problem) and "\nA. " in record.problem else ""


def _noted(choices: Choices, row: Row) -> str:
    options = options_of(row.values, row.names.get("options", ""), row.place)
    return choices.add(row.place, gold_of(row), options) if options else ""


def answered_by_text(paths: Sequence[str], columns: Columns) -> bool:
    """Whether a whole set names options by their texts, by a second look at its rows."""
    choices = Choices()
    for file in paths:
        for row in columns.rows(file):
            _noted(choices, row)
    return choices.by_text
