"""`a2r gather`: the output folders of shards become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from a2r_train import output
from a2r_train.config import load_yaml
from a2r_train.data.asked import FILE as ASKED
from a2r_train.data.asked import write_asked
from a2r_train.data.explore import (
    INPUTS,
    MAY_DIFFER,
    ExploreConfig,
    checked_chunks,
    chunk_path,
    chunks_of,
    finish,
    load_problems,
    write_task,
)
from a2r_train.data.task import FILE as TASK
from a2r_train.errors import InputError

READ_AGAIN = ("problems", "prompt")  # inputs of explore; the model need not be on this machine


def gather(shards: Sequence[str], output_dir: str) -> Path:
    """Join the output folders of shards into one complete folder, and return the path of its rollouts.jsonl.

    Raises InputError for folders of different runs, or of one whose input has changed since a shard was
    explored, and for a chunk that is missing, in two folders, or not of its problems.
    """
    first, *others = configs = [_config_of(shard) for shard in shards]
    for shard, config in zip(shards[1:], others, strict=True):
        for key, value in asdict(first).items():
            if key not in (*MAY_DIFFER, "output_dir") and getattr(config, key) != value:
                raise InputError(
                    f"{shard}: belongs to another run than {shards[0]} "
                    f"({key}: {getattr(config, key)!r}, not {value!r})"
                )
    _check_inputs(shards)
    for shard, config in zip(shards, configs, strict=True):
        for what, how in output.changed_inputs(Path(shard), asdict(config), ("problems", "prompt")).items():
            raise InputError(
                f"{shard}: {what} {how} since this shard was explored; restore it, or explore again"
            )
    config = replace(configs[0], shard="0/1", output_dir=output_dir)
    problems = load_problems(config)
    chunks = chunks_of(config, problems)
    paths = [_only(shards, i, len(chunks)) for i in range(len(chunks))]
    if extra := {p for shard in shards for p in Path(shard).glob("chunks/*.jsonl")} - {*paths}:
        raise InputError(
            f"{min(extra)}: one chunk more than {config.problems} has; expected the problems of the shards"
        )
    folder = Path(output_dir)
    if output.prepare(folder, asdict(config), ignore=MAY_DIFFER, inputs=INPUTS):
        return folder / "rollouts.jsonl"
    try:
        write_task(config, folder)
        write_asked(folder, problems)
        return finish(config, folder, checked_chunks(config, chunks, paths), paths)
    except InputError:
        output.abandon(folder, files=(TASK, ASKED))
        raise


def _check_inputs(shards: Sequence[str]) -> None:
    """Raise InputError for shards that have read other files, models or prompts under the same names."""
    known: dict[str, tuple[str, str]] = {}
    for shard in shards:
        task = Path(shard) / TASK
        prompt = {"the prompt": task.read_text(encoding="utf-8")} if task.is_file() else {}
        for what, content in {**output.digests_of(Path(shard)), **prompt}.items():
            first, before = known.setdefault(what, (shard, content))
            if content != before:
                raise InputError(f"{shard}: {what} has changed since {first}; explore this shard again")


def _only(shards: Sequence[str], index: int, of: int) -> Path:
    """The one place of a chunk."""
    paths = [path for shard in shards if (path := chunk_path(Path(shard), index)).exists()]
    if not paths:
        raise InputError(
            f"chunk {index} of 0 to {of - 1} is in none of {', '.join(shards)}; finish or name its shard"
        )
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: this chunk is also in {paths[0]}; expected every chunk once")
    return paths[0]


def _config_of(shard: str) -> ExploreConfig:
    path = Path(shard) / "config.yaml"
    kept = load_yaml(str(path))
    if not {"problems", "model", "output_dir"} <= kept.keys() <= {f.name for f in fields(ExploreConfig)}:
        raise InputError(f"{path}: not written by `a2r explore`; expected the output folders of its shards")
    return ExploreConfig(**kept)
