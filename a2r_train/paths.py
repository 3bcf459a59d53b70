"""What a path of a recipe names: one file, or the shards of one set of data.

A set is named by its file (`train.jsonl`), by a pattern (`OUT-*/chunks/*.jsonl`, `train-*.parquet`), or by
a folder of nothing but shards, as explore's `chunks`. A stage may have written a large set as Parquet shards,
so `train.jsonl` also finds `train-00000-of-00004.parquet` if it does not exist itself.
"""

from __future__ import annotations

import glob
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

SHIPPED = Path(__file__).parents[1]  # the repository, with data/ and accelerate_configs/
TINY_PAIR = (f"{SHIPPED}/data/tiny/explorer", f"{SHIPPED}/data/tiny/synthesizer")  # used if no model is named
GYM = "reasoning_gym:"  # tasks of Reasoning Gym, whose names are also comma-separated
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_SHARD = re.compile(r"(?:[\w.-]*-)?\d{5,}(?:-of-\d{5})?\.(?:jsonl|parquet)(?:\.gz|\.xz)?")
_OF = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


def paths_in(value: str) -> list[str]:
    """The sets that a recipe names, comma-separated; a file whose own name has a comma is one set."""
    if os.path.exists(value) or value.startswith(GYM):
        return [value]
    return [path for part in value.split(",") if (path := part.strip())]


def shards(path: str) -> list[str]:
    """The files of one set in their order; for anything else the path itself, whether it exists or not."""
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return _in_folder(path) or [path]
    if "*" in path or "?" in path:
        return sorted(file for file in glob.glob(path) if os.path.isfile(file)) or [path]
    return _written_instead(path) or [path]


def may_name(path: str, file: str) -> bool:
    """Whether a path of a recipe names this file where it is there."""
    if path == file or os.path.dirname(file) == path.rstrip("/"):
        return True
    if "*" in path or "?" in path:
        return fnmatchcase(file, path)
    stem, written = os.path.splitext(path)[0], _OF.search(file)
    return written is not None and file[: written.start()] == stem


def has_data(path: str) -> bool:
    """Whether a path names a file or shards that are there."""
    return all(os.path.isfile(shard) for shard in shards(path))


def _in_folder(folder: str) -> list[str]:
    """The shards in a folder that holds no other data, so that the folder is unambiguous."""
    files = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    data = [name for name in files if name.removesuffix(".gz").removesuffix(".xz").endswith(FORMATS)]
    sets = {re.sub(r"\d{5,}(-of-\d{5})?", "", name) for name in data}
    if len(sets) != 1 or not all(_SHARD.fullmatch(name) for name in data):
        return []
    return [os.path.join(folder, name) for name in data]


def _written_instead(path: str) -> list[str]:
    """The Parquet shards that a stage has written in place of one file; [] unless they are all there."""
    stem, ending = os.path.splitext(path)
    if ending not in (".jsonl", ".parquet"):
        return []
    found = sorted(glob.glob(f"{glob.escape(stem)}-?????-of-?????.parquet"))
    numbers = [match.groups() for file in found if (match := _OF.search(file))]
    whole = numbers == [(f"{i:05d}", f"{len(found):05d}") for i in range(len(found))]
    return found if whole else []
