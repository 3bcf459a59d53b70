"""Multiple choice, a whole set at a time: whether its answers are letters, texts of options or their indices.

One row does not say it where an answer is both the text of one option and the index of another; a set does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from a2r_train.data.options import Options, ways_of
from a2r_train.errors import InputError

FEWEST_INDICES = 12  # by chance 3 in 100 such sets of four options have no 0
TEXT, INDEX, BOTH = "text", "index", "both"
log = logging.getLogger(__name__)


@dataclass
class Choices:
    """What the rows of one set say, of which all can be written as JSON, and that of several processes added.

    counts: answers that are a text alone, an index alone, or both, of different options; examples: of each
    the first one, as [place, answer, letter of the text, letter of the index]; sizes: rows by their number of
    options; from_0: indices of options that the row does not number, zeros: how many of those are 0.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    from_0: int = 0
    zeros: int = 0
    numbers: int = 0  # texts of options that look like indices

    def add(self, place: str, answer: str, options: Options) -> None:
        """The answer of one row as it is given, and the options of the row."""
        size = str(len(options))
        self.sizes[size] = self.sizes.get(size, 0) + 1
        ways = ways_of(answer, options)
        if ways.label or ways.text == ways.index:
            return
        looks = answer.strip().isdecimal() and int(answer) <= len(options)  # like an index, also from 1
        kind = (BOTH if looks else TEXT) if ways.text else INDEX
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.examples.setdefault(kind, [place, answer.strip(), ways.text, ways.index])
        self.numbers += kind != INDEX and answer.strip().isdigit()
        if kind == INDEX and not options.first:
            self.from_0 += 1
            self.zeros += int(answer) == 0

    def include(self, other: Choices) -> None:
        """Add what was met in another part of the set, which comes later."""
        for mine, more in ((self.counts, other.counts), (self.sizes, other.sizes)):
            for key, count in more.items():
                mine[key] = mine.get(key, 0) + count
        self.examples = {**other.examples, **self.examples}
        self.from_0 += other.from_0
        self.zeros += other.zeros
        self.numbers += other.numbers

    def check(self, path: str) -> None:
        """Say how the answers were read, and how many rows have fewer options than the others.

        Raises InputError for answers that may be read in two ways.
        """
        self._check_kinds()
        if self.from_0 >= FEWEST_INDICES and not self.zeros:
            raise InputError(
                f"{path}: {self.from_0} answers are indices of options, and none of them is 0; indices "
                "count from 0, so give letters, or subtract 1"
            )
        if self.from_0:
            _, answer, _, letter = self.examples[INDEX]
            log.info("%s: answers are indices from 0; %s is option %s", path, answer, letter)
        elif self.numbers:
            _, answer, letter, _ = self.examples.get(BOTH) or self.examples[TEXT]
            log.info("%s: answers are texts of options; %r is option %s", path, answer, letter)
        most, rows = max(map(int, self.sizes), default=0), sum(self.sizes.values())
        if fewer := rows - self.sizes.get(str(most), 0):
            log.info("%s: %d of %d rows have fewer than %d options", path, fewer, rows, most)

    def _check_kinds(self) -> None:
        """Texts alone, or indices alone, tell how an answer is meant that may be both."""
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
                f"{index[0]}: answer {index[1]} is only the index of option {index[3]}, and at {text[0]} "
                f"answer {text[1][:40]!r} is the text of option {text[2]}; give letters in all rows"
            )
