"""The four records of the loop, and how they are read, validated and written.

Files are JSONL, also compressed (.jsonl.xz), or Parquet; a data set on the hub is `owner/name`,
`owner/name:split` or `owner/name:config:split`, and a split may be a slice, `train[100:200]`. Every error
names the file, the line and the field.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, TypeVar

from a2r_train.config import check_keys
from a2r_train.errors import InputError

Verdict = str
CORRECT, INCORRECT, UNPARSABLE, TIMEOUT = "correct", "incorrect", "unparsable", "timeout"
CHECK_VERDICT = "unverified"  # of rollouts made elsewhere, until `a2r bundle` has judged them
VERDICTS = (CORRECT, INCORRECT, UNPARSABLE, TIMEOUT, CHECK_VERDICT)


@dataclass(frozen=True)
class Problem:
    """A question with a gold answer and the name of its verifier; `source` says where it is from."""

    id: str
    problem: str
    answer: str
    verifier: str = "math"
    source: str = ""


@dataclass(frozen=True)
class Rollout:
    """One explorer solution of a problem.

    `answer` is "" where none could be extracted; token counts are the engine's.
    """

    problem_id: str
    sample: int
    text: str
    answer: str = ""
    verdict: Verdict = CHECK_VERDICT
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    model: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Bundle:
    """One problem with k references in a fixed order; the list fields run parallel.

    `majority_verdict` is that of the most frequent answer among the references (of the first one where
    several tie).
    """

    id: str
    problem_id: str
    problem: str
    answer: str
    verifier: str
    references: list[str]
    reference_answers: list[str]
    reference_verdicts: list[Verdict]
    reference_tokens: list[int]
    n_correct: int
    majority_answer: str
    majority_verdict: Verdict
    source: str = ""


@dataclass(frozen=True)
class Synthesis:
    """One synthesizer answer to one bundle."""

    bundle_id: str
    sample: int
    text: str
    answer: str
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    model: str
    seed: int


Record = TypeVar("Record", Problem, Rollout, Bundle, Synthesis)


def read(
    kind: type[Record], path: str, columns: Mapping[str, str] | None = None, present: set[str] | None = None
) -> list[Record]:
    """Read records of one kind, in file order.

    `columns` maps a field to the column that holds it; None where the user has no such key. With `present`,
    to which the columns of all rows are added, it is for several files: a row may hold a field by its own
    name, too. Rows of GSM8K's own shape (`question`, `answer` ending in `#### 42`) are taken for problems as
    they are. Problems may come from several sets, comma-separated: their ids then begin with the name of the
    set, which is their source, too, if they have none. Raises InputError for a missing file or column, a
    broken line, a wrong type, an empty required field, and a repeated id.
    """
    records: list[Record] = []
    seen: dict[Any, str] = {}
    if kind is Problem and "," in path and not os.path.exists(path):
        return _problems_of(path.split(","), columns, present)
    for place, row in rows(path):
        if present is not None:
            present.update(row)
        record = _from_row(kind, row, place, columns, present is None, len(records))
        identity = _identity(record)
        if identity in seen:
            raise InputError(
                f"{place}: id {identity!r} was used at {seen[identity]} already; ids must be unique"
            )
        seen[identity] = place
        records.append(record)
    if not records:
        raise InputError(f"{path}: no rows; expected at least one {kind.__name__.lower()}")
    return records


def judged_by(verifier: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems with that verifier in place of their own; as they are where it is empty."""
    return [replace(problem, verifier=verifier) for problem in problems] if verifier else list(problems)


def _problems_of(
    paths: Sequence[str], columns: Mapping[str, str] | None, present: set[str] | None
) -> list[Problem]:
    found: dict[str, list[Problem]] = {}
    for path in map(str.strip, paths):
        name = path.rpartition("/")[2].partition(":")[0].partition(".")[0]
        if name in found:
            raise InputError(
                f"{path}: a second set of the name {name!r}; ids begin with "
                "the name, so each set needs its own"
            )
        found[name] = read(Problem, path, columns, present)
    return [
        replace(p, id=f"{name}/{p.id}", source=p.source or name)
        for name, problems in found.items()
        for p in problems
    ]


def parse_columns(columns: str, more: Iterable[str] = ()) -> dict[str, str]:
    """The `columns` of a recipe: a JSON object from fields, or what else is read, to names of columns.

    Raises InputError for anything else.
    """
    try:
        names = json.loads(columns)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError(
            f'columns {columns!r}: expected names of columns as JSON, such as {{"problem": "prompt"}}'
        )
    check_keys(
        names, {*more, *(field.name for kind in (Problem, Rollout) for field in fields(kind))}, "columns"
    )
    return names


def column_of(field: str, row: Mapping[str, Any], columns: Mapping[str, str], strict: bool) -> str:
    """The column of a field in a row; unless `strict`, its own name where the row has not the one that it is
    mapped to.
    """
    column = columns.get(field, field)
    return column if strict or column in row or field not in row else field


def value_of(
    field: str, hint: str, row: Mapping[str, Any], place: str, columns: Mapping[str, str], strict: bool
) -> Any:
    """What a row says of a field, of the type of the hint; None where it says nothing.

    Raises InputError for another type.
    """
    column = column_of(field, row, columns, strict)
    value = row.get(column)
    return None if value is None else _typed(value, hint, f"{place}: field {column!r}")


def write(records: Iterable[Record], path: str | Path) -> None:
    """Write records as JSONL, atomically: the file appears complete or not at all."""
    write_text(path, "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in records))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, with the user's umask."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a JSONL file, compressed or not, a Parquet file, or a data set on the hub."""
    if path.endswith(".parquet") and os.path.exists(path):
        from pyarrow import ArrowException, parquet

        try:
            found = parquet.read_table(path).to_pylist()
        except ArrowException as error:
            raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
        for number, row in enumerate(found, 1):
            yield f"{path}: row {number}", row
    elif os.path.isfile(path):
        yield from _jsonl_rows(path)
    elif os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file in it, such as {path.rstrip('/')}/train.jsonl")
    elif path.endswith((".jsonl", ".json", ".parquet", ".xz")) or path.count("/") != 1:
        raise InputError(
            f"{path}: no such file; expected a .jsonl or .parquet file, or a data set of the hub"
        )
    else:
        yield from _hub_rows(path)


def _jsonl_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with _opened(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            place = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (
                ValueError,
                RecursionError,
            ) as error:  # beside broken syntax: endless digits, endless nesting
                reason = getattr(error, "msg", str(error))
                raise InputError(f"{place}: not valid JSON ({reason}); expected one object a line") from None
            if not isinstance(row, dict):
                raise InputError(f"{place}: a JSON {type(row).__name__}; expected an object")
            yield place, row


def _opened(path: str) -> IO[str]:
    if path.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8", errors="replace")
    return open(path, encoding="utf-8", errors="replace")


def _lines(file: IO[str], path: str) -> Iterator[str]:
    try:
        yield from file
    except (EOFError, lzma.LZMAError) as error:
        raise InputError(
            f"{path}: not a whole xz file ({str(error).rstrip('.')}); fetch or compress it again"
        ) from None


def _hub_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    name, *parts = re.split(r":(?![^\[]*\])", path)  # not at the colon of a slice
    split = parts.pop() if parts else "train"
    try:
        rows = load_dataset(name, *parts, split=split)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a file, and the hub says: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", dict(row)


def _from_row(
    kind: type[Record],
    row: dict[str, Any],
    place: str,
    columns: Mapping[str, str] | None,
    strict: bool,
    index: int,
) -> Record:
    hint = "" if columns is None else " (map names with `columns:`)"
    columns, own = columns or {}, row
    mapped = "problem" in columns and (strict or columns["problem"] in row)
    worked = columns.get("problem") == "question" and "answer" not in columns
    if kind is Problem and (worked or not mapped):
        row = _gsm8k_shape(row)
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = value_of(field.name, str(field.type), row, place, columns, strict)
        if value is not None:
            values[field.name] = value
        elif field.name == "id":
            values["id"] = str(index)
        elif field.name == "sample" and "sample" not in columns:
            values["sample"] = index
        elif field.default is MISSING:
            column, near = column_of(field.name, row, columns, strict), ", ".join(sorted(map(str, own)))
            raise InputError(f"{place}: no column {column!r}; the columns are {near}{hint}")
    required: tuple[str, ...] = ("problem", "answer") if kind in (Problem, Bundle) else ()
    for name in required:
        if not values[name].strip():
            raise InputError(f"{place}: field {name!r} is empty; every problem needs one")
    if kind is Bundle:
        _check_parallel(values, place)
    return kind(**values)


def _check_parallel(values: dict[str, Any], place: str) -> None:
    sizes = {name: len(value) for name, value in values.items() if isinstance(value, list)}
    if len(set(sizes.values())) > 1 or not values["references"]:
        raise InputError(
            f"{place}: lists of {sizes}; expected an entry for each reference in all of them, and a reference"
        )
    if min(values["reference_tokens"]) < 0:
        raise InputError(f"{place}: reference_tokens are {values['reference_tokens']}; expected 0 or more")
    right = values["reference_verdicts"].count(CORRECT)
    if values["n_correct"] != right:
        raise InputError(
            f"{place}: n_correct is {values['n_correct']}, and {right} of reference_verdicts are {CORRECT}"
        )


def _gsm8k_shape(row: dict[str, Any]) -> dict[str, Any]:
    """GSM8K keeps the worked solution and the gold answer in one column, parted by `####`."""
    if "problem" in row or "question" not in row:
        return row
    if row.get("answer") is None:
        return {**row, "problem": row["question"]}
    _, mark, gold = str(row["answer"]).rpartition("####")
    return {
        **row,
        "problem": row["question"],
        "answer": gold.strip().replace(",", "") if mark else row["answer"],
    }


def _typed(value: Any, hint: str, place: str) -> Any:
    if hint in ("str", "Verdict"):
        if value is None or isinstance(value, bool | list | dict):
            raise InputError(
                f"{place}: {'null' if value is None else f'a {type(value).__name__}'}; expected text"
            )
        if hint == "Verdict" and value not in VERDICTS:
            raise InputError(
                f"{place}: {value!r}; expected {', '.join(VERDICTS)}, or no such column: `a2r bundle` judges"
            )
        if isinstance(value, float | Decimal) and math.isfinite(value):
            value = format(Decimal(str(value)), "f")  # 1e-07, which no verifier reads, is 0.0000001
        return (
            str(value).encode(errors="replace").decode()
        )  # half of a surrogate pair, which no tokenizer takes, becomes `?`
    if hint == "int":
        if (
            isinstance(value, float) and value.is_integer()
        ):  # as pandas writes a column of which a value is missing
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{place}: {value!r}; expected a whole number")
        return value
    if not isinstance(value, list):
        raise InputError(f"{place}: {value!r}; expected a list")
    inner = hint.removeprefix("list[").removesuffix("]")
    return [_typed(item, inner, place) for item in value]


def _identity(record: Problem | Rollout | Bundle | Synthesis) -> Any:
    if isinstance(record, Rollout):
        return record.problem_id, record.model, record.sample
    return (record.bundle_id, record.sample) if isinstance(record, Synthesis) else record.id


def seed_of(seed: int, *parts: object) -> int:
    """A seed that depends on names alone, so that shards, chunks and resumes agree."""
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return int.from_bytes(digest[:4], "big")
