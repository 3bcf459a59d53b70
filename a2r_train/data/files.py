"""Files and data sets as rows: JSONL, CSV, TSV, Parquet, also compressed, and data sets of the hub.

A data set on the hub is `owner/name`, `owner/name:split` or `owner/name:config:split`, and a split may be a
slice, `train[100:200]`. Every error names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from a2r_train.errors import InputError

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_CELL_CHARACTERS = 2**27  # of a CSV; the csv module's own limit of 131,072 is below one long solution


def paths_in(value: str) -> list[str]:
    """The files and data sets that a recipe names, comma-separated; a file whose name has a comma is one."""
    if os.path.exists(value):
        return [value]
    return [path for part in value.split(",") if (path := part.strip())]


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of one file or data set. Raises InputError for one that is missing or broken."""
    kind = format_of(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file in it, such as {path.rstrip('/')}/train.jsonl")
    if not os.path.isfile(path):
        if kind or path.count("/") != 1 or path.endswith(tuple(COMPRESSED)):
            raise InputError(
                f"{path}: no such file; expected a {', '.join(FORMATS)} file, or a data set of the hub"
            )
        yield from _hub_rows(path)
    elif kind == ".parquet":
        yield from _parquet_rows(path)
    elif kind in DELIMITERS:
        yield from _table_rows(path, DELIMITERS[kind])
    else:
        yield from _jsonl_rows(path)


def format_of(path: str) -> str:
    """The ending that tells the format, without that of a compression; "" for any other."""
    for ending in COMPRESSED:
        path = path.removesuffix(ending)
    ending = os.path.splitext(path)[1].lower()
    return ending if ending in FORMATS else ""


def _parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    for number, row in enumerate(table, 1):
        yield f"{path}: row {number}", row


def _table_rows(path: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a CSV or TSV with a header; an empty cell is a missing value."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with _opened(path) as file:
        reader = csv.DictReader(_lines(file, path), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    cells = len(row) + len(row.get(None) or []) - (None in row)
                    cells -= sum(value is None for value in row.values())
                    raise InputError(f"{place}: {cells} cells; the header has {len(reader.fieldnames or [])}")
                yield place, {name: value for name, value in row.items() if value != ""}
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None


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
    opener: Any = COMPRESSED.get(os.path.splitext(path)[1], open)
    opened: IO[str] = opener(path, "rt", encoding="utf-8-sig", newline="")
    return opened


def _lines(file: IO[str], path: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(file, 1):  # noqa: B007
            yield line
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{path}:{number + 1}: byte 0x{byte:02x} is not UTF-8, at this line "
            "or just after it; save the file as UTF-8 "
            "(from Latin-1: iconv -f latin1 -t utf8)"
        ) from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        kind = os.path.splitext(path)[1].removeprefix(".")
        raise InputError(
            f"{path}: not a whole {kind} file ({str(error).rstrip('.')}); fetch or compress it again"
        ) from None


def _hub_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    name, *parts = re.split(r":(?![^\[]*\])", path)  # not at the colon of a slice
    split = parts.pop() if parts else "train"
    try:
        dataset = load_dataset(name, *parts, split=split)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a file, and the hub says: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(dataset, 1):
        yield f"{path}: row {number}", dict(row)
