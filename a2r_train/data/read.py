"""The only reader of data: turns rows of any file into records. Column names are mapped here and nowhere
else.

A recipe's `columns` maps a field to the column that holds it. A field may also have its own name, or one of
`ALIASES`. Every error names the file, the line and the column.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from a2r_train.config import check_keys, mapping_in
from a2r_train.data.choices import CLASH, Choices, answered_by_text, note_choice
from a2r_train.data.files import header_of, rows
from a2r_train.data.options import letter_of, options_of, with_options
from a2r_train.data.programs import IDENTITY, is_program, program_of
from a2r_train.data.typed import is_chat, is_null, typed
from a2r_train.data.worked import gold_of
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.records import (
    CORRECT,
    Bundle,
    Problem,
    Reference,
    Rollout,
    Synthesis,
)

log = logging.getLogger(__name__)

Record = TypeVar("Record", Problem, Rollout, Bundle, Synthesis)
ALIASES = {
    "problem": ("question",),
    "text": ("completion", "generation", "response"),
    "texts": ("completions", "generations", "responses"),
}
# What other data sets call a field, most likely first. `label` and `solution` come last: a label may be the
# number of a class, and a solution usually includes the working.
LOOKALIKES = {
    "problem": ("prompt", "query", "input", "instruction", "task", "text"),
    "answer": ("gold", "target", "final_answer", "expected_answer", "answerKey", "label", "solution"),
    "text": ("output", "answer_text", "solution", "model_output"),
}
SHOWN = ("problem", "text", "texts")  # to a model
KEY, FLAG = "columns:", "--columns"  # of a recipe, and of a command without one
MAX_NAMED = 50  # problems, in one message
READABLE = {field.name for kind in (Problem, Rollout) for field in fields(kind)} | {"texts", "options"}


@dataclass
class Columns:
    """The `columns` of a recipe, for one file or several; a file may hold a field by its own name instead."""

    names: Mapping[str, str] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)  # all columns of the files read so far
    key: str = KEY  # what sets them, for the hint of an error; "" if nothing does
    lacking: dict[str, str] = field(default_factory=dict)  # mapped columns, with the first place without them
    by_text: bool = False  # whether the set is known to name options by their texts
    sources: set[str] = field(default_factory=set)  # names of files whose problems have no other source

    @staticmethod
    def parse(columns: str | Mapping[str, str], more: Iterable[str] = ()) -> Columns:
        """From a mapping of fields to column names, or the text of one; `more` fields are allowed besides
        `READABLE`.

        Raises InputError for anything else.
        """
        names = mapping_in(columns) if isinstance(columns, str) else columns
        if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
            raise InputError(f"columns {columns!r}: expected column names, such as {{problem: prompt}}")
        check_keys(names, {*more, *READABLE}, "columns")
        return Columns(dict(names))

    def rows(self, path: str) -> Iterator[Row]:
        """The rows of one file.

        Raises InputError if a row lacks a mapped column that an earlier row has.
        """
        here: set[str] = set()
        for place, values in rows(path):
            yield self.row(place, values, here)

    def row(self, place: str, values: Mapping[str, Any], here: set[str]) -> Row:
        """One row of a set; `here` are the columns of its earlier rows, and gets those of this one. Raises
        InputError as `rows` does.
        """
        for name in self.names.values():
            if name not in values:
                self.lacking.setdefault(name, place)
                if name in here:
                    raise lacks_column(place, name)
        if not here.issuperset(values):
            here.update(values)
            self.met.update(values)
        return Row(place, values, self.names, self.key, self.by_text)

    def check_met(self) -> None:
        """Raise InputError for a name that no row of any file had."""
        for name in self.names.values():
            if name not in self.met:
                near = difflib.get_close_matches(name, sorted(self.met), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                key = (self.key or KEY).rstrip(":")
                raise InputError(f"{key}: none of the files has a column {name!r}{hint}")


def lacks_column(place: str, name: str) -> InputError:
    """The error for a row without a mapped column that earlier rows have."""
    return InputError(f"{place}: no column {name!r}, which earlier rows have")


@dataclass(frozen=True)
class Row:
    """One row of a file. Gives a field's value in the type that is asked for, or None if the row has none."""

    place: str
    values: Mapping[str, Any]
    names: Mapping[str, str]
    key: str = KEY
    by_text: bool = False

    def column(self, field: str) -> str:
        """The column that holds a field in this row; if none does, the one that should.

        A mapped column always counts if it is there: no other column stands in for a null.
        """
        if field not in self.names and not is_null(self.values.get(field)):
            return field
        mapped = self.names.get(field, field)
        if field in self.names and mapped in self.values:
            return mapped
        candidates = [field, *ALIASES.get(field, ())]
        there = [name for name in candidates if name in self.values]
        return next((name for name in there if not is_null(self.values[name])), (there or [mapped])[0])

    def value(self, field: str, hint: str) -> Any:
        """Raises InputError for a value of another type than the hint says."""
        column = self.column(field)
        value = self.values.get(column)
        if field in SHOWN and is_chat(value) and is_null(self.values.get("verdict")):  # else judged as text
            says = f"field {column!r} holds chat messages"
            raise InputError(f"{self.place}: {says}; expected text, such as the `content` of one")
        if type(value) is str and hint == "str" and value.isascii():  # the common case, for speed
            return value
        found = None if is_null(value) else typed(value, hint, f"{self.place}: field {column!r}")
        if field.endswith("_tokens") and found is not None and found < 0:
            raise InputError(f"{self.place}: field {column!r}: {found}; expected 0 or more")
        return found

    def text(self, field: str) -> str | None:
        value: str | None = self.value(field, "str")
        return value

    def texts(self) -> list[str] | None:
        """The texts of a row that lists several, None for one that has a single text.

        Raises InputError for a row with both, unless one of them is mapped: that one counts.
        """
        column, listed = self.column("text"), self.column("texts")
        has_text, has_list = (not is_null(self.values.get(name)) for name in (column, listed))
        if has_text and has_list and ("text" in self.names) == ("texts" in self.names):
            raise InputError(
                f"{self.place}: {column!r} holds a text and {listed!r} a list of them; say which are the "
                f"rollouts, with {self.key or KEY} {{text: {column}}} or {{texts: {listed}}}"
            )
        if has_text and "texts" not in self.names:
            return None
        found: list[str] | None = self.value("texts", "list[str]")
        return found

    def required_text(self, field: str) -> str:
        """Raises InputError for a column that is missing, null or empty."""
        value = self.text(field)
        if value is None:
            raise self.missing(field)
        if not value.strip():
            raise InputError(f"{self.place}: field {self.column(field)!r} is empty; every problem needs one")
        return value

    def missing(self, field: str) -> InputError:
        """The error for a field that this row lacks, naming the column that may be meant."""
        column, there = self.column(field), sorted(map(str, self.values))
        if column in self.values:
            return InputError(f"{self.place}: column {column!r} has no value here; every row needs one")
        near = [name for name in LOOKALIKES.get(field, ()) if name in self.values]
        lower = {name.lower(): name for name in there}
        near = near or [lower[name] for name in difflib.get_close_matches(column.lower(), lower, 1, 0.7)]
        says = f"{header_of(self.place)}: no column {column!r}; the columns are {', '.join(there)}"
        if near:
            named = f'{{"{field}": "{near[0]}"}}'
            named = f"'{named}'" if self.key == FLAG else named
            remedy = f"set {self.key} {named}" if self.key else f"rename it to {field!r}"
            return InputError(f"{says} (is it {near[0]!r}? then {remedy})")
        return InputError(f"{says} (map names with `{self.key}`)" if self.key else says)


def read(
    kind: type[Record],
    path: str,
    columns: Columns | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> list[Record]:
    """Read records of one kind, in file order, from one file or several, comma-separated.

    Ids of several files begin with the name of their file, which is also the source of problems without one;
    rollouts keep the ids of their problems. A caller that shares `columns` with other files checks them
    itself. `defaults` are the fields that a row may leave out. Raises InputError for a missing file or
    column, a broken line, a wrong type, an empty required field, and a repeated id.
    """
    shared, columns = columns is not None, columns or Columns(key="")
    paths = paths_in(path)
    if kind is not Rollout and len(paths) > 1:
        return _of_several(kind, paths, columns, defaults)
    records: list[Record] = []
    places: dict[Any, str] = {}
    untested, choices = list[str](), Choices()
    for file in paths:
        for row in columns.rows(file):
            if kind is Problem and is_untested(row):
                untested.append(name_of(row))
                continue
            for record in records_in(kind, row, len(records) + len(untested), defaults):
                identity = identity_of(record)
                if identity in places:
                    raise used_twice(row.place, identity, places[identity])
                places[identity] = row.place
                records.append(record)
                note_choice(choices, row, record)
    if choices.by_text and not columns.by_text:  # which only the whole set tells
        return read(kind, path, replace(columns, by_text=True), defaults)
    warn_untested(path, untested)
    choices.check(path)
    if not records:
        raise InputError(f"{path}: no rows; expected at least one {kind.__name__.lower()}")
    if not shared:
        columns.check_met()
    return records


def used_twice(place: str, identity: Any, first: str) -> InputError:
    """The error for an id that an earlier row has."""
    number = " (a row without one has its number)" if isinstance(identity, str) and identity.isdigit() else ""
    return InputError(f"{place}: id {identity!r} was already used at {first}; ids must be unique{number}")


def stream(kind: type[Record], path: str, columns: Columns | None = None) -> Iterator[tuple[str, Record]]:
    """(place, record) of one file or several, named as `read` names them; ids are not compared.

    Raises InputError as `read` does.
    """
    columns = replace(columns) if columns else Columns(key="")
    paths = paths_in(path)
    names = _names(paths) if len(paths) > 1 else [""]
    count, untested, choices = 0, list[str](), Choices()
    for file, name in zip(paths, names, strict=True):
        for index, row in enumerate(columns.rows(file)):
            if kind is Problem and is_untested(row):
                untested.append(name_of(row))
                continue
            (record,) = records_in(kind, row, index)
            if note_choice(choices, row, record) == CLASH and not columns.by_text:
                columns.by_text = answered_by_text(paths, columns)
                (record,) = records_in(kind, replace(row, by_text=columns.by_text), index)
            if name and isinstance(record, Problem) and not record.source:
                columns.sources.add(name)
            yield row.place, _named(record, name) if name else record
            count += 1
    warn_untested(path, untested)
    choices.check(path)
    if not count:
        raise InputError(f"{path}: no rows; expected at least one {kind.__name__.lower()}")


def judged_by(verifier: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with that verifier in place of their own; unchanged if it is empty."""
    return [replace(problem, verifier=verifier) for problem in problems] if verifier else list(problems)


def problem_of(row: Row, identity: str) -> Problem:
    """The problem that a row holds, options rendered; `identity` if it has no id of its own."""
    if is_program(row.values) and (program := program_of(row.values, identity, "", row.place)):
        return program
    text, gold = row.required_text("problem"), gold_of(row)
    given = {name: value for name in ("verifier", "source") if (value := row.text(name))}
    if options := options_of(row.values, row.names.get("options", ""), row.place):
        gold, text = letter_of(gold, options, row.place, row.by_text), with_options(text, options)
        given = {"verifier": "multiple_choice", **given}
    metadata = row.value("metadata", "dict") or {}
    return Problem(row.text("id") or identity, text, gold, **given, metadata=metadata)


def question_of(row: Row, identity: str) -> Problem:
    """The same without the answer, which need not be known."""
    if is_program(row.values) and (program := program_of(row.values, identity, "", row.place)):
        return replace(program, answer="")
    text = row.required_text("problem")
    given: dict[str, Any] = {n: value for n in ("verifier", "source") if (value := row.text(n))}
    if options := options_of(row.values, row.names.get("options", ""), row.place):
        text, given = with_options(text, options), {"verifier": "multiple_choice", **given}
    return Problem(row.text("id") or identity, text, "", **given)


def questions(path: str, columns: Columns) -> list[Problem]:
    """The problems of the files, without their answers. Raises InputError as `read` does, but not for golds
    and ids.
    """
    found = [
        question_of(row, str(number))
        for file in paths_in(path)
        for number, row in enumerate(columns.rows(file))
        if not is_untested(row)
    ]
    if not found:
        raise InputError(f"{path}: no rows; expected at least one problem")
    return found


def is_untested(row: Row) -> bool:
    """Whether none of a program's tests can be judged, so that its problem is left out."""
    return is_program(row.values) and program_of(row.values, "", "", row.place) is None


def name_of(row: Row) -> str:
    """What a message calls a problem in MBPP's format."""
    return str(row.values.get(IDENTITY, row.place))


def warn_untested(path: str, untested: Sequence[str]) -> None:
    if untested:
        log.warning(
            "%s: left out %d problem(s), as none of their tests is a call with literals on one side of == "
            "and a literal on the other: %s",
            path,
            len(untested),
            ", ".join(untested[:MAX_NAMED]) + (" and others" if len(untested) > MAX_NAMED else ""),
        )


def _of_several(
    kind: type[Record], paths: Sequence[str], columns: Columns, defaults: Mapping[str, Any]
) -> list[Record]:
    sets = dict(zip(_names(paths), (read(kind, path, columns, defaults) for path in paths), strict=True))
    return [_named(record, name) for name, records in sets.items() for record in records]


def _names(paths: Sequence[str]) -> list[str]:
    """The name of each set. Raises InputError if two are the same."""
    names: list[str] = []
    for path in paths:
        name = path.rpartition("/")[2].partition(":")[0].partition(".")[0].removesuffix("-*")
        if name in names:
            raise InputError(
                f"{path}: a second set named {name!r}; ids begin with the name, so each set needs its own"
            )
        names.append(name)
    return names


def _named(record: Any, name: str) -> Any:
    if isinstance(record, Problem):
        return replace(record, id=f"{name}/{record.id}", source=record.source or name)
    if isinstance(record, Bundle):
        return replace(record, id=f"{name}/{record.id}", problem_id=f"{name}/{record.problem_id}")
    return replace(record, bundle_id=f"{name}/{record.bundle_id}")


def records_in(
    kind: type[Record], row: Row, index: int, defaults: Mapping[str, Any] = MappingProxyType({})
) -> list[Any]:
    """The records of one row: one, or as many rollouts as its list of texts has.

    `index` is the number of the first of them in its set, which names a record without a name of its own.
    """
    if kind is Problem:
        return [problem_of(row, str(index))]
    texts = row.texts() if kind is Rollout else None
    if texts is not None:  # several such rows may share a problem; the tokens are those of all texts
        known = _fields(Rollout, row, {"text": "", "sample": 0}) | {"completion_tokens": 0}
        return [Rollout(**known | {"text": text, "sample": index + at}) for at, text in enumerate(texts)]
    numbered = {"sample": index} if kind is Rollout or defaults else {}
    values = _fields(kind, row, {**numbered, **defaults})
    if kind is Bundle:
        _check_bundle(values, row.place)
    return [kind(**values)]


def _fields(kind: type[Any], row: Row, defaults: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, hint, optional in _asked(kind):  # type: ignore[arg-type]
        value = row.value(name, hint)
        if value is not None:
            values[name] = value
        elif name in defaults:
            values[name] = defaults[name]
        elif not optional:
            raise row.missing(name)
    for name in ("problem", "answer") if kind is Bundle else ():
        if not values[name].strip():
            raise InputError(f"{row.place}: field {name!r} is empty; every problem needs one")
    return values


@cache
def _asked(kind: type[Any]) -> list[tuple[str, str, bool]]:
    """(name, type, whether it may be missing) of the fields of a record."""
    return [
        (one.name, str(one.type), one.default is not MISSING or one.default_factory is not MISSING)
        for one in fields(kind)
    ]


def _check_bundle(values: dict[str, Any], place: str) -> None:
    references: list[Reference] = values["references"]
    if not references:
        raise InputError(f"{place}: no references; expected at least one")
    if min(reference.tokens for reference in references) < 0:
        raise InputError(
            f"{place}: a reference has {min(r.tokens for r in references)} tokens; expected 0 or more"
        )
    right = sum(reference.verdict == CORRECT for reference in references)
    if values["n_correct"] != right:
        raise InputError(
            f"{place}: n_correct is {values['n_correct']}, but {right} of the references are {CORRECT}"
        )


def identity_of(record: Problem | Rollout | Bundle | Synthesis) -> Any:
    """What no two records of a set may share."""
    if isinstance(record, Rollout):
        return record.problem_id, record.model, record.sample
    return (record.bundle_id, record.sample) if isinstance(record, Synthesis) else record.id
