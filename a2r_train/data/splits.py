"""The splits that were built: their bundles in order, measured and written in shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from a2r_train.atomic import replacing
from a2r_train.data.lengths import PromptLengths
from a2r_train.data.mixture import Facts
from a2r_train.data.part import FACTS, Said, said_of
from a2r_train.data.processes import Rate, mapped
from a2r_train.data.shards import Shard, bundles_of, cut_shards, join, references_of, write_shard
from a2r_train.data.unparsable import Unparsable
from a2r_train.prompts import Prompter
from a2r_train.records import Bundle

SHARD_CHARACTERS = 32 * 2**20  # of one shard's texts
PARQUET_CHARACTERS = 10**9  # of all texts; from here on they are written as Parquet


@dataclass(frozen=True)
class Rows:
    """Rows from the parts' files of one name, in the order of their problems."""

    name: str
    folders: Sequence[Path]
    parts: np.ndarray
    rows: np.ndarray
    characters: np.ndarray

    def shards(self, work: Path, ending: str = ".jsonl") -> list[Shard]:
        """The shards that they are written as; those of Parquet carry their number."""
        cuts = cut_shards(self.characters, SHARD_CHARACTERS)
        of = f"-of-{len(cuts):05d}" if ending == ".parquet" else ""
        found = []
        for i, cut in enumerate(cuts):
            name = f"{self.name}-{i:05d}"
            where = self.folders, self.name, self.parts[cut], self.rows[cut]
            found.append(Shard(work / f"{name}{of}{ending}", *where, work / f"{name}-tokens.npy"))
        return found


@dataclass(frozen=True)
class Split:
    """One split: its bundles, what they were made of, and what was dropped by reason."""

    bundle_rows: Rows
    rollout_rows: Rows
    facts: Facts
    said: Said
    unread: Unparsable
    dropped: Counter[str]

    @property
    def count(self) -> int:
        return len(self.bundle_rows.rows)

    @property
    def left_out(self) -> str:
        """What was dropped, the most frequent reason first; "" if nothing was."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common() if count)

    @property
    def problems(self) -> int:
        return len(np.unique(self.facts.problem))

    @property
    def n_correct(self) -> np.ndarray:
        return self.facts.n_correct

    @property
    def bundles(self) -> Iterator[Bundle]:
        """The bundles in order, read as they are asked for."""
        for shard in self.bundle_rows.shards(Path()):
            yield from bundles_of(shard.table())

    def only(self, kept: np.ndarray) -> Split:
        """The split with these bundles alone."""
        rows = self.bundle_rows
        rows = replace(rows, parts=rows.parts[kept], rows=rows.rows[kept], characters=rows.characters[kept])
        facts = Facts(*(values[kept] for values in vars(self.facts).values()))
        return replace(self, bundle_rows=rows, facts=facts)


def split_of(name: str, folders: Sequence[Path]) -> Split:
    """What the parts have made of one split, in the order of the problems."""
    said, dropped = said_of(folders, name)
    order, bundles, columns = _ordered(name, folders, FACTS)
    _, rollouts, _ = _ordered(f"{name}-rollouts", folders, ("problem", "characters"))
    facts = Facts(*(columns[key][order] for key in FACTS[:-1]))
    facts = replace(facts, majority_right=facts.majority_right.astype(bool))
    unread = Unparsable(said.unread, said.rollouts, said.cut, said.sample, said.marked)
    return Split(bundles, rollouts, facts, said, unread, dropped)


def _ordered(
    name: str, folders: Sequence[Path], keys: Sequence[str]
) -> tuple[np.ndarray, Rows, dict[str, np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {key: [np.array([], dtype=np.int64)] for key in keys}
    parts, rows = [np.array([], dtype=np.int32)], [np.array([], dtype=np.int32)]
    for part, folder in enumerate(folders):
        path = folder / f"{name}.npz"
        columns = dict(np.load(path)) if path.exists() else {}
        count = len(columns.get("problem", ()))
        for key in keys if count else ():
            found[key].append(columns[key])
        if count:
            parts.append(np.full(count, part, dtype=np.int32))
            rows.append(np.arange(count, dtype=np.int32))
    whole = {key: np.concatenate(some[1:] or some) for key, some in found.items()}
    order = np.argsort(whole["problem"], kind="stable")
    where = np.concatenate(parts)[order], np.concatenate(rows)[order]
    return order, Rows(name, folders, *where, whole["characters"][order]), whole


@dataclass(frozen=True)
class Lengths:
    """Prompt lengths in tokens, and how many references were cut for them."""

    tokens: np.ndarray
    cut_references: int


def measure_splits(prompter: Prompter, splits: Mapping[str, Split], work: Path) -> Lengths:
    """Prompt lengths of all bundles in tokens; keeps what a killed run has measured.

    Texts without a count get one, in a file beside their shard. Raises InputError if a prompt cannot be made
    to fit its budget.
    """
    lengths = PromptLengths(prompter)
    work = work / "out"
    work.mkdir(parents=True, exist_ok=True)
    todo = [shard for split in splits.values() for shard in split.bundle_rows.shards(work)]
    rate = Rate("bundle: measuring prompts", sum(len(shard.rows) for shard in todo), "bundles")
    found = []
    for shard in todo:
        path = shard.path.with_name(f"{shard.path.stem}-lengths.npy")
        if not path.exists():
            _measure_shard(lengths, shard, path)
        else:
            rate.before += len(shard.rows)
        found.append(np.load(path))
        rate.add(len(shard.rows))
    for split in splits.values():
        for shard in split.rollout_rows.shards(work):
            _count_rollouts(lengths, shard)
    whole = np.concatenate(found, axis=1)
    return Lengths(whole[0], int(whole[1].sum()))


def _measure_shard(lengths: PromptLengths, shard: Shard, path: Path) -> None:
    table = shard.table(("problem", "references"))
    references = references_of(table)
    problems = table.column("problem").to_pylist()
    counted = lengths.of(list(zip(problems, references, strict=True)))
    tokens = [reference.tokens for some in references for reference in some]
    if not all(tokens):
        texts = [reference.text for some in references for reference in some]
        _save(_filled(lengths, tokens, texts), shard.tokens)
    _save(np.array([(one.tokens, one.cut_references) for one in counted], dtype=np.int64).T, path)


def _count_rollouts(lengths: PromptLengths, shard: Shard) -> None:
    tokens = shard.table(("completion_tokens",)).column(0).to_pylist()
    if not all(tokens) and shard.tokens and not shard.tokens.exists():
        _save(_filled(lengths, tokens, shard.table(("text",)).column(0).to_pylist()), shard.tokens)


def _filled(lengths: PromptLengths, tokens: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """The counts, with missing ones filled in."""
    missing = [i for i, count in enumerate(tokens) if not count]
    filled = np.array(tokens, dtype=np.int64)
    filled[missing] = lengths.counts([texts[i] for i in missing])
    return filled


def _save(values: np.ndarray, path: Path | None) -> None:
    if path:
        with replacing(path) as part, open(part, "wb") as file:
            np.save(file, values)


def write_splits(splits: Mapping[str, Split], folder: Path, work: Path, form: str, processes: int) -> str:
    """Write bundles and test rollouts, as JSONL or as Parquet shards; returns how their names end.

    Keeps what a killed run has written.
    """
    work = work / "out"
    work.mkdir(parents=True, exist_ok=True)
    sets = [split.bundle_rows for split in splits.values()]
    sets += [split.rollout_rows for split in splits.values()]
    characters = sum(int(rows.characters.sum()) for rows in sets)
    ending = f".{form}" if form else ".parquet" if characters > PARQUET_CHARACTERS else ".jsonl"
    todo = {rows.name: rows.shards(work, ending) for rows in sets}
    every = [shard for some in todo.values() for shard in some]
    rate = Rate("bundle: writing", sum(len(shard.rows) for shard in every), "rows")
    for at, _ in mapped(write_shard, every, processes):
        rate.add(len(every[at].rows))
    for name, some in todo.items():
        if ending == ".parquet":
            for shard in some:
                shard.path.replace(folder / shard.path.name)
        elif some:
            join([shard.path for shard in some], folder / f"{name}.jsonl")
    return ending if ending == ".jsonl" else "-*.parquet"
