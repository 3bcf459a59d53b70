"""Files appear complete or not at all, and what a killed process leaves goes away."""

import os
from pathlib import Path

import pytest

from a2r_train.atomic import ABANDONED_S, HOST, part_of, remove_abandoned, replacing

NO_PROCESS = 2**22 + 1


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as part:
        part.write_text("n\udcff", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_abandoned_files_are_removed(tmp_path: Path) -> None:
    """Another shard on this machine or another one may be writing."""
    dead, alive = f".a.{HOST}.{NO_PROCESS}.part", f".a.{HOST}.{os.getppid()}.part"
    far, old, foreign = f".a.elsewhere.{NO_PROCESS}.part", ".a.elsewhere.7.part", ".x.part"
    for name in (dead, alive, far, old, foreign, part_of(tmp_path / "b").name):
        (tmp_path / name).write_text("")
    long_ago = (tmp_path / old).stat().st_mtime - ABANDONED_S - 1
    os.utime(tmp_path / old, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {alive, far, foreign}
