"""Bundles and rollouts as shards, JSONL or Parquet, taken from a store's parts in the order of their
problems.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from a2r_train.atomic import replacing
from a2r_train.data.spill import ROLLOUT, metadata_of, metadata_text
from a2r_train.errors import InputError
from a2r_train.records import Bundle, Reference, Rollout

REFERENCE = pa.struct(
    [
        ("text", pa.string()),
        ("answer", pa.string()),
        ("verdict", pa.string()),
        ("tokens", pa.int64()),
        ("model", pa.string()),
    ]
)
BUNDLE = pa.schema(
    [
        ("id", pa.string()),
        ("problem_id", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("verifier", pa.string()),
        ("references", pa.list_(REFERENCE)),
        ("n_correct", pa.int64()),
        ("majority_answer", pa.string()),
        ("majority_verdict", pa.string()),
        ("source", pa.string()),
        ("metadata", pa.string()),
    ]
)
ROLLOUT_ROWS = pa.schema(ROLLOUT)
ROWS_A_BATCH = 512  # of the parts' files
ROWS_A_GROUP = 1024  # of Parquet: what a reader has to hold at once


def bundle_cells(bundle: Bundle) -> tuple[Any, ...]:
    """A bundle as a row of BUNDLE."""
    return (
        bundle.id, bundle.problem_id, bundle.problem, bundle.answer, bundle.verifier,
        [vars(reference) for reference in bundle.references],
        bundle.n_correct, bundle.majority_answer, bundle.majority_verdict, bundle.source,
        metadata_text(bundle.metadata),
    )  # fmt: skip


def rollout_cells(rollout: Rollout) -> tuple[Any, ...]:
    """A rollout as a row of ROLLOUT_ROWS."""
    return tuple(vars(rollout).values())


def batches_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as record batches, each small enough to be read quickly."""
    for at in range(0, len(rows), ROWS_A_BATCH):
        columns = zip(*rows[at : at + ROWS_A_BATCH], strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def check_format(form: str) -> None:
    """Raise InputError for a format that stages do not write."""
    if form not in ("", "jsonl", "parquet"):
        raise InputError(f"format {form!r}: expected jsonl or parquet; or leave the key out")


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write rows in groups that a reader can hold one by one."""
    parquet.write_table(table, path, row_group_size=ROWS_A_GROUP, compression="zstd")


@dataclass(frozen=True)
class Shard:
    """Rows of the parts that become one file. For each row: the number of its part's folder, and its row
    there.
    """

    path: Path
    folders: Sequence[Path]
    name: str  # of the rows' file in the folders
    parts: np.ndarray
    rows: np.ndarray
    tokens: Path | None = None  # counts of the texts whose rows have none

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows in their order; no others are read."""
        found, order = [], []
        for part in np.unique(self.parts):
            at = np.flatnonzero(self.parts == part)
            with pa.memory_map(str(self.folders[part] / f"{self.name}.arrow")) as source:
                reader = pa.ipc.open_file(source)
                found.append(_taken(reader, self.rows[at], columns))
            order.append(at)
        whole = pa.concat_tables(found)
        return whole.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))


def _taken(reader: Any, rows: np.ndarray, columns: Sequence[str] | None) -> pa.Table:
    """Rows of an Arrow file; the batches that hold none of them are not touched."""
    table = reader.read_all()
    table = table.select(list(columns)) if columns else table
    first, last = int(rows.min()), int(rows.max()) + 1
    return table.slice(first, last - first).take(pa.array(rows - first))


def cut_shards(characters: np.ndarray, size: int) -> list[slice]:
    """Runs of rows with about `size` characters of text each."""
    numbers = (np.cumsum(characters) - 1) // size
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(characters)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]


def write_shard(shard: Shard) -> None:
    """Write one shard in the format of its ending, unless an earlier run has."""
    if shard.path.exists():
        return
    table = shard.table()
    if shard.tokens and shard.tokens.exists():
        table = with_tokens(table, np.load(shard.tokens))
    with replacing(shard.path) as part:
        if shard.path.suffix == ".parquet":
            write_parquet(table, part)
        else:
            with open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(lines_of(table))


def with_tokens(table: pa.Table, counts: np.ndarray) -> pa.Table:
    """The table with the token counts of its texts, in their order."""
    tokens = pa.array(counts, pa.int64())
    if "references" not in table.column_names:
        at = table.column_names.index("completion_tokens")
        return table.set_column(at, table.field(at), tokens)
    references = table.column("references").combine_chunks()
    columns = references.flatten().flatten()
    fields = [references.type.value_type.field(i) for i in range(references.type.value_type.num_fields)]
    columns[3] = tokens
    values = pa.StructArray.from_arrays(columns, fields=fields)
    offsets = references.offsets
    offsets = pa.array(offsets.to_numpy() - offsets[0].as_py(), pa.int32())
    made = pa.ListArray.from_arrays(offsets, values).cast(references.type)
    at = table.column_names.index("references")
    return table.set_column(at, table.field(at), made)


def lines_of(table: pa.Table) -> Iterator[str]:
    """The rows as lines of JSON, as `records.write` writes them."""
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            metadata = row.pop("metadata", None)
            if metadata:
                row["metadata"] = json.loads(metadata)
            yield json.dumps(row, ensure_ascii=False) + "\n"


def references_of(table: pa.Table) -> list[list[Reference]]:
    return [[Reference(**one) for one in some] for some in table.column("references").to_pylist()]


def bundles_of(table: pa.Table) -> Iterator[Bundle]:
    """The bundles that rows of BUNDLE hold."""
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            references = [Reference(**one) for one in row.pop("references")]
            yield Bundle(**row | {"references": references, "metadata": metadata_of(row["metadata"])})


def join(paths: Iterable[Path], target: Path) -> None:
    """Put the shards of a JSONL file together; it appears complete or not at all."""
    with replacing(target) as part, open(part, "wb") as whole:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, whole, 2**20)
        whole.flush()
        os.fsync(whole.fileno())
