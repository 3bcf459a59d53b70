"""Rows on disk, keyed by problem: they come in any order, from any number of shards, and go out problem by
problem.

A hash assigns the problems to parts. A file of the store holds what was read from one slice of the input, as
one Arrow record batch per part. A part is read by taking its batch from every file, so memory holds one part
at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from a2r_train.atomic import replacing
from a2r_train.errors import InputError

# Where a row comes from: the hash of its problem, its number in its slice, its slice, and its line there.
PLACE = [("key", pa.uint64()), ("number", pa.int64()), ("slice", pa.int32()), ("line", pa.int64())]
PROBLEM = [
    ("id", pa.string()),  # null if it is to be the number of the problem
    ("problem", pa.string()),
    ("answer", pa.string()),
    ("verifier", pa.string()),
    ("source", pa.string()),
    ("metadata", pa.string()),  # as JSON: Arrow has no objects with arbitrary keys
]
ROLLOUT = [
    ("problem_id", pa.string()),
    ("sample", pa.int64()),  # null if it is to be the number of the rollout
    ("text", pa.string()),
    ("answer", pa.string()),
    ("verdict", pa.string()),
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
    ("finish_reason", pa.string()),
    ("model", pa.string()),
    ("seed", pa.int64()),
]
# The key of the problem that a rollout's row names beside its id; null if it names none.
BESIDE = [("beside", pa.uint64())]
PROBLEMS, ROLLOUTS = pa.schema(PLACE + PROBLEM), pa.schema(PLACE + ROLLOUT + BESIDE)


def key_of(text: str) -> int:
    """A hash of a problem's id or text: 64 bits, the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Pile:
    """Rows of one kind that are to be written as a file of the store."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema, self.rows, self.characters = schema, list[tuple[Any, ...]](), 0

    def add(self, row: tuple[Any, ...], characters: int) -> None:
        self.rows.append(row)
        self.characters += characters

    def write(self, path: Path, parts: int) -> None:
        """Write the rows, grouped by part and in order, and clear the pile.

        Raises InputError for a number that does not fit in 64 bits.
        """
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.schema)
        arrays = [_array(column, field) for column, field in zip(columns, self.schema, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        keys = np.asarray(columns[0], dtype=np.uint64) % np.uint64(parts)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(parts + 1))
        write_batches(path, self.schema, _cut(table.take(order), starts))
        self.rows, self.characters = [], 0


def _array(column: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(column, type=field.type)
    except (OverflowError, pa.ArrowInvalid):
        large = max((value for value in column if isinstance(value, int)), key=abs, default=0)
        raise InputError(f"rollouts: field {field.name!r} is {large}; expected at most 64 bits") from None


def _cut(table: pa.Table, starts: np.ndarray) -> Iterator[pa.RecordBatch]:
    table = table.combine_chunks()
    for start, stop in pairwise(starts):
        batches = table.slice(start, stop - start).to_batches()
        yield batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write an Arrow file, which appears complete or not at all."""
    with (
        replacing(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def mark(path: Path, content: Any) -> None:
    """Record as JSON that a step is done. Nothing waits for the disk: after a kill the work continues, after
    a power failure it starts again.
    """
    with replacing(path) as part:
        part.write_text(json.dumps(content), encoding="utf-8")


def read_part(files: Sequence[Path], schema: pa.Schema, part: int) -> pa.Table:
    """The rows of one part from all files of a kind, in their order."""
    batches = []
    for file in files:
        with pa.OSFile(str(file), "rb") as source:
            batches.append(pa.ipc.open_file(source).get_batch(part))
    return pa.Table.from_batches(batches, schema=schema)


def columns_of(file: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Some columns of a file of the store, without reading the others."""
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all().select(list(names))
        return [table.column(name).to_numpy().copy() for name in names]


def distinct(file: Path, name: str) -> list[Any]:
    """The different values of one column of a file of the store."""
    with pa.memory_map(str(file)) as source:
        found: list[Any] = pa.ipc.open_file(source).read_all().column(name).unique().to_pylist()
    return found


def metadata_text(metadata: dict[str, Any]) -> str | None:
    """Metadata as a cell; null where there is none."""
    return json.dumps(metadata) if metadata else None


def metadata_of(cell: str | None) -> dict[str, Any]:
    return dict(json.loads(cell)) if cell else {}
