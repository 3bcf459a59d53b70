"""Multiple choice: options in a row are rendered into the problem, and its answer becomes their letter.

Options are a list (`options` or `choices`), an object from letters to texts, the hub's `{"label": [...],
"text": [...]}`, or columns of their own: A, B, C, or option_1, option_2 and so on.
"""

from __future__ import annotations

import logging
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from a2r_train.data.files import literal
from a2r_train.errors import InputError
from a2r_train.records import Bundle, Problem

LETTERS = string.ascii_uppercase[:10]  # as the verifier multiple_choice reads
FROM_ONE = "123456789"
NAMES = ("options", "choices")
FEWEST_INDICES = 12  # by chance 3 in 100 such sets of four options have no 0
FEWEST_LETTERS, MOST_LETTERS = 8, 1000  # answers from which letters are told, and that are looked at
log = logging.getLogger(__name__)
_LETTER = re.compile(r"\(?[A-Ja-j]\)?\.?")
_OPTION_COLUMN = re.compile(
    r"^(?:(?:answer_)?(?:option|choice|alternative)[ _-]?)?([a-j]|\d)$", re.IGNORECASE
)
_LOOKS_LIKE_OPTIONS = re.compile(
    r"^(?:[a-e]|(?:answer_)?(?:options?|choices?|alternatives?)[ _-]?\w?)$", re.IGNORECASE
)


def are_letters(answers: Sequence[str]) -> bool:
    """Whether all of them are letters of options."""
    return bool(answers) and all(_LETTER.fullmatch(answer.strip()) for answer in answers)


def letters_judged_as_text(problems: Iterable[Problem | Bundle]) -> str:
    """What is wrong where all golds are letters A to E, and a verifier of mathematics or text reads them; ""
    where nothing is.

    Looks at the first of them, which are enough.
    """
    found = [p for p in islice(problems, MOST_LETTERS) if p.verifier in ("math", "math_last_number", "exact")]
    golds = [problem.answer.strip("(). ").upper() for problem in found]
    several = len(golds) >= FEWEST_LETTERS and len({*golds}) > 1
    if not several or max(golds) > "E" or not are_letters(golds):
        return ""
    return (
        f"all {len(golds)} answers are letters from A to {max(golds)}, and {found[0].verifier} judges them, "
        "which may take `B. Lamb` for another answer than B; if they are options, set "
        "verifier: multiple_choice, and give the options in a column or in the problem"
    )


class Options(dict[str, str]):
    """Texts by letter. `first` is the number of the first option: 1 where the row numbers them so, else 0."""

    first = 0


def options_of(values: Mapping[str, Any], mapped: str, place: str) -> Options:
    """The options of a row by their letters, none without any; `mapped` is the column that the recipe names
    for them.

    Raises InputError for options that cannot be read, and for a column that looks like options and is no
    such.
    """
    column = next((name for name in (mapped, *NAMES) if name and values.get(name) not in (None, "")), "")
    if column:
        return _from_column(values[column], f"{place}: field {column!r}")
    if options := _from_columns(values):
        return options
    if unused := next((name for name in values if _LOOKS_LIKE_OPTIONS.match(str(name))), ""):
        raise InputError(
            f"{place}: column {unused!r} looks like the options of a multiple "
            "choice, and nothing reads it; name a list "
            'of them by columns: {"options": ...}, call the columns A, B, C, ..., or remove it'
        )
    return Options()


def with_options(problem: str, options: Mapping[str, str]) -> str:
    """The problem's text with its options below it."""
    return "\n".join([problem.rstrip(), "", *(f"{label}. {text}" for label, text in options.items())])


def letter_of(answer: str, options: Options, is_number: bool, place: str) -> str:
    """The letter of the right option, given as letter, text, or number: as the row numbers them, else from 0.

    Raises InputError for an answer that is none of these, and for one that may be two of them.
    """
    by_label = [label for label in options if label.lower() == answer.strip().strip("()").rstrip(".").lower()]
    by_text = [label for label, text in options.items() if text.strip() == answer.strip()]
    labels = list(options)
    index = int(answer) - options.first if answer.strip().isdigit() and len(answer.strip()) < 3 else -1
    by_index = [labels[index]] if 0 <= index < len(labels) and not by_label else []
    if by_label:
        return by_label[0]
    if by_text and by_index and by_text != by_index:
        if not is_number:
            return by_text[0]
        raise InputError(
            f"{place}: answer {answer} is the text of option {by_text[0]} "
            f"and the index of option {by_index[0]}; "
            "give its letter"
        )
    if not (by_text or by_index):
        shown = ", ".join(f"{label} {text[:20]!r}" for label, text in options.items())
        raise InputError(
            f"{place}: answer {answer[:40]!r} is none of the options {shown}, nor a letter or an index"
        )
    return (by_text or by_index)[0]


class IndexedAnswers:
    """The answers of one set that are indices of their options, which count from 0."""

    def __init__(self) -> None:
        self.indices: list[int] = []

    def add(self, given: object, letter: str) -> None:
        """An answer as its row gives it, and the letter that it was read as."""
        text = str(given).strip()
        if text.isdigit() and LETTERS[int(text) : int(text) + 1] == letter:
            self.indices.append(int(text))

    def check(self, path: str) -> None:
        """Say how they were read. Raises InputError where so many of them are never 0."""
        if len(self.indices) >= FEWEST_INDICES and 0 not in self.indices:
            raise InputError(
                f"{path}: {len(self.indices)} answers are indices of options, and none of them is 0; indices "
                "count from 0, so give letters, or subtract 1"
            )
        if self.indices:
            index = self.indices[0]
            log.info("%s: answers are indices from 0; %d is option %s", path, index, LETTERS[index])


def _from_columns(values: Mapping[str, Any]) -> Options:
    """Options in columns of their own, such as A, B, C or option_1, option_2; none unless two or more follow
    in order.
    """
    ends = {name: match[1].upper() for name in values if (match := _OPTION_COLUMN.match(str(name)))}
    for labels in (LETTERS, FROM_ONE, "012345678"):
        named = {
            labels.index(end): name for name, end in ends.items() if end in labels and _is_text(values[name])
        }
        if len(named) > 1 and sorted(named) == list(range(len(named))) and len(named) == len(ends):
            options = Options({LETTERS[at]: str(values[named[at]]) for at in sorted(named)})
            options.first = int(labels == FROM_ONE)
            return options
    return Options()


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _from_column(value: Any, place: str) -> Options:
    if isinstance(value, str):
        value = _parsed(value)
    options: dict[str, Any]
    first = 0
    if isinstance(value, Mapping) and {"text", "label"} <= value.keys():
        options = _lettered(value["label"], value["text"], place)
        first = int([str(label) for label in value["label"]] == list(FROM_ONE[: len(value["label"])]))
    elif isinstance(value, Mapping):
        options = {str(label): text for label, text in value.items() if text is not None}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        options = dict(zip(LETTERS, value, strict=False)) if len(value) <= len(LETTERS) else {}
    else:
        options = {}
    if (
        len(options) < 2
        or not all(map(_is_text, options.values()))
        or not set(options) <= {*LETTERS, *LETTERS.lower()}
    ):
        raise InputError(
            f"{place}: {str(value)[:60]!r}; expected 2 to {len(LETTERS)} "
            "options, as a list of texts or by letters; a table may part them by |"
        )
    lettered = Options({label.upper(): str(text) for label, text in options.items()})
    lettered.first = first
    return lettered


def _lettered(labels: Any, texts: Any, place: str) -> dict[str, Any]:
    """The options of two lists; labels that are numbers become letters."""
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise InputError(
            f"{place}: {str(labels)[:40]!r} and {str(texts)[:40]!r}; expected two lists of one length"
        )
    if [str(label) for label in labels] == [str(n) for n in range(1, len(labels) + 1)]:
        labels = list(LETTERS[: len(labels)])
    return dict(zip(map(str, labels), texts, strict=True))


def _parsed(text: str) -> Any:
    """The cell of a table: a list as JSON or as Python writes it, or texts parted by | or ;."""
    found = literal(text)
    if not isinstance(found, str):
        return found
    for separator in ("|", ";"):
        if separator in text:
            return [part.strip() for part in text.split(separator)]
    return text
