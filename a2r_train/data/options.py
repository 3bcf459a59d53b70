"""Multiple choice: options in a row are rendered into the problem, and its answer becomes their letter.

Options are a list (`options` or `choices`), an object from letters to texts, the hub's `{"label": [...],
"text": [...]}`, or columns of their own: A, B, C, or option_1, option_2 and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

from a2r_train.data.files import literal
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Bundle, Problem
from a2r_train.verify.options import LETTERS, options_in
from a2r_train.verify.traits import LETTER

FROM_ONE = "123456789"
NAMES = ("options", "choices")
FEWEST_LETTERS, MOST_LETTERS = 8, 1000  # answers needed to recognise letters, and examined at most
_LETTER = re.compile(r"\(?[A-Ja-j]\)?\.?")
_RENDERED = re.compile(r"\n\n(?=A\. (?!.*\n\nA\. ))", re.DOTALL)  # where the last options begin
_OWN_LETTER = re.compile(r"\s*\(?([A-Ja-j])[).:]\s*(\S.*)", re.DOTALL)
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
    """A warning if all golds are letters A to E but a verifier of mathematics or text reads them, else "".

    Looks only at the first problems, which are enough.
    """
    found = [p for p in islice(problems, MOST_LETTERS) if p.verifier in ("math", "math_last_number", "exact")]
    golds = [problem.answer.strip("(). ").upper() for problem in found]
    several = len(golds) >= FEWEST_LETTERS and len({*golds}) > 1
    if not several or max(golds) > "E" or not are_letters(golds):
        return ""
    remedy = (
        "if they are options, set verifier: multiple_choice, and give the options in a column or the problem"
    )
    if all(options_in(problem.problem) for problem in found):
        remedy = "they are options of their problems, so set verifier: multiple_choice, or leave the key out"
    return (
        f"all {len(golds)} answers are letters from A to {max(golds)}, but {found[0].verifier} judges them, "
        f"which may read `B. Lamb` as another answer than B; {remedy}"
    )


def letter_unasked(problems: Iterable[Problem | Bundle], prompt: PromptConfig, *templates: str) -> str:
    """A warning if multiple choice is judged but one of these templates does not ask for a letter, else "".

    Looks only at the first problems. It is no error, because the text of an option is also read.
    """
    verifiers = {problem.verifier for problem in islice(problems, MOST_LETTERS)}
    if "multiple_choice" not in verifiers or prompt.answer_pattern:
        return ""
    for key in templates:
        text = (getattr(prompt, key) + prompt.system).lower()
        if not any(word in text for word in ("letter", "option", "choice")):
            return (
                f"its {key} does not ask for a letter, and multiple_choice reads only the letter or the text "
                f"of an option; make it say: {LETTER}"
            )
    return ""


class Options(dict[str, str]):
    """Texts by letter. `first` is the number of the first option: 1 where the row numbers them so, else 0.
    `given`: the texts as the row has them, if these begin with their letters.
    """

    first = 0
    given: Mapping[str, str] = MappingProxyType({})


def options_of(values: Mapping[str, Any], mapped: str, place: str) -> Options:
    """The options of a row by their letters, empty if it has none; `mapped` is the column that the recipe
    names for them.

    Raises InputError for options that cannot be read, and for a column that looks like options but is not
    usable.
    """
    known = {name: value for name, value in values.items() if not _is_empty(value)}
    column = next((name for name in (mapped, *NAMES) if name in known), "")
    if column:
        return _from_column(known[column], f"{place}: field {column!r}")
    if options := _from_columns(values, place):
        return options
    if unused := next((name for name in known if _LOOKS_LIKE_OPTIONS.match(str(name))), ""):
        raise InputError(
            f"{place}: column {unused!r} looks like the options of a multiple choice, but nothing reads it; "
            "map the field options to a column that lists them, call the columns A, B, C, ..., or remove it"
        )
    return Options()


def with_options(problem: str, options: Mapping[str, str]) -> str:
    """The problem's text with its options below it."""
    return "\n".join([problem.rstrip(), "", *(f"{label}. {text}" for label, text in options.items())])


def without_options(problem: str) -> str:
    """The problem's text without the options that `with_options` put below it."""
    return _RENDERED.split(problem, maxsplit=1)[0]


def options_below(problem: str) -> list[str]:
    """The texts of these options, in their order."""
    _, *below = _RENDERED.split(problem, maxsplit=1)
    return [part[3:] for part in re.split(r"\n(?=[B-J]\. )", below[0])] if below else []


@dataclass(frozen=True)
class Ways:
    """The letter of the option that an answer names by letter, by text, and as an index; "" for none. A
    letter is no index.
    """

    label: str = ""
    text: str = ""
    index: str = ""


def ways_of(answer: str, options: Options) -> Ways:
    """All ways in which an answer names an option. An index counts as the row numbers its options, else from
    0.
    """
    answer = answer.strip()
    texts = [*options.items(), *options.given.items()]
    by_text = next((letter for letter, text in texts if text.strip() == answer), "")
    label = answer.strip("()").rstrip(".").upper()
    if label in options:
        return Ways(label, by_text)
    index = int(answer) - options.first if answer.isdecimal() and len(answer) < 3 else -1
    return Ways(text=by_text, index=list(options)[index] if 0 <= index < len(options) else "")


def letter_of(answer: str, options: Options, place: str, by_text: bool = False) -> str:
    """The letter of the right option, given as letter, text, or index, tried in this order; text comes first
    if the whole set answers `by_text`. `Choices` checks over a whole set whether the order matters.

    Raises InputError for an answer that is none of these.
    """
    ways = ways_of(answer, options)
    if found := (by_text and ways.text) or ways.label or ways.text or ways.index:
        return found
    shown = ", ".join(f"{label} {text[:20]!r}" for label, text in options.items())
    raise InputError(
        f"{place}: answer {answer[:40]!r} is none of the options {shown}, nor a letter or an index "
        f"from {options.first}; give the letter"
    )


def _from_columns(values: Mapping[str, Any], place: str) -> Options:
    """Options in columns of their own, such as A, B, C or option_1, option_2; none unless two or more follow
    in order. The last ones may be empty.
    """
    ends = {name: match[1].upper() for name in values if (match := _OPTION_COLUMN.match(str(name)))}
    for labels in (LETTERS, FROM_ONE, "012345678"):
        named = {labels.index(end): values[name] for name, end in ends.items() if end in labels}
        texts = {LETTERS[at]: named[at] for at in sorted(named)}
        known = [value for value in texts.values() if not _is_empty(value)]
        in_order = len(known) > 1 and sorted(named) == list(range(len(ends)))
        if in_order and all(map(_is_text, known)):
            return _checked(texts, place, int(labels == FROM_ONE))
    return Options()


def _checked(texts: Mapping[str, Any], place: str, first: int) -> Options:
    """The options by their letters, without the last ones that are empty.

    Raises InputError for an empty one before another, and for two that are equal.
    """
    letters = list(texts)
    while letters and _is_empty(texts[letters[-1]]):
        letters.pop()
    given = {letter: str(texts[letter]) for letter in letters}
    options = _without_letters(given, place)
    options.first = first
    by_text: dict[str, str] = {}
    for letter in letters:
        if _is_empty(texts[letter]):
            raise InputError(
                f"{place}: option {letter} is empty, but option {letters[-1]} is not; fill it, or move the "
                "later ones up"
            )
        if (other := by_text.setdefault(options[letter].strip(), letter)) != letter:
            raise InputError(
                f"{place}: options {other} and {letter} are both {options[letter].strip()[:40]!r}; options "
                "must differ, so correct one, or leave the row out"
            )
    return options


def _without_letters(given: Mapping[str, str], place: str) -> Options:
    """The options, without the letters that their texts begin with if each has its own.

    Raises InputError for letters in another order.
    """
    found = {letter: _OWN_LETTER.fullmatch(text) for letter, text in given.items()}
    own = {letter: match[1].upper() for letter, match in found.items() if match}
    if sorted(own.values()) != sorted(given):
        return Options(given)
    if other := next((letter for letter in given if own[letter] != letter), ""):
        raise InputError(
            f"{place}: option {other} begins with another letter, {given[other].strip()[:40]!r}; put the "
            "options in the order of their letters, or remove these"
        )
    options = Options({letter: match[2] for letter, match in found.items() if match})
    options.given = dict(given)
    return options


def _is_empty(value: Any) -> bool:
    """Whether an option is left out: nothing, blank text, or NaN, which is what pandas writes for it."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _from_column(value: Any, place: str) -> Options:
    if isinstance(value, str):
        value = _parsed(value)
    options: dict[str, Any]
    first = 0
    if isinstance(value, Mapping) and {"text", "label"} <= value.keys():
        options = _lettered(value["label"], value["text"], place)
        first = int([str(label) for label in value["label"]] == list(FROM_ONE[: len(value["label"])]))
    elif isinstance(value, Mapping):
        options = {str(label): text for label, text in value.items()}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        options = dict(zip(LETTERS, value, strict=False)) if len(value) <= len(LETTERS) else {}
    else:
        options = {}
    known = [text for text in options.values() if not _is_empty(text)]
    if len(known) < 2 or not all(map(_is_text, known)) or not set(options) <= {*LETTERS, *LETTERS.lower()}:
        raise InputError(
            f"{place}: {str(value)[:60]!r}; expected 2 to {len(LETTERS)} "
            "options, as a list of texts or by letters; a table may separate them by |"
        )
    return _checked({label.upper(): text for label, text in options.items()}, place, first)


def _lettered(labels: Any, texts: Any, place: str) -> dict[str, Any]:
    """The options of two lists; labels that are numbers become letters."""
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise InputError(
            f"{place}: {str(labels)[:40]!r} and {str(texts)[:40]!r}; expected two lists of equal length"
        )
    if [str(label) for label in labels] == [str(n) for n in range(1, len(labels) + 1)]:
        labels = list(LETTERS[: len(labels)])
    return dict(zip(map(str, labels), texts, strict=True))


def _parsed(text: str) -> Any:
    """The cell of a table: a list as JSON or as Python writes it, or texts separated by | or ;."""
    found = literal(text)
    if not isinstance(found, str):
        return found
    for separator in ("|", ";"):
        if separator in text:
            return [part.strip() for part in text.split(separator)]
    return text
