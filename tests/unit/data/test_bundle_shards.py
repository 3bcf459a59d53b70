"""The data builder by parts: order, shards and formats do not matter, and a killed run goes on."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import files_of, write_rows
from pyarrow import parquet

from a2r_train.data import build, ingest, processes, splits
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.files import rows, slices
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.paths import shards
from a2r_train.records import Bundle, Rollout

OWN_TO_A_RUN = ("config.yaml", "inputs.json", "versions.json")


@pytest.fixture(autouse=True)
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small input goes through many slices, parts and shards, as large input does."""
    for module, name, value in (
        (build, "PART_BYTES", 600),
        (ingest, "SLICE_BYTES", 400),
        (ingest, "PILE_CHARACTERS", 200),
        (ingest, "PROBLEMS_A_PILE", 3),
        (splits, "SHARD_CHARACTERS", 300),
    ):
        monkeypatch.setattr(module, name, value)


def problem_rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "problem": f"What is {i} + {i}?", "answer": str(2 * i), "metadata": {"é": [i, None]}}
        for i in range(count)
    ]


def rollout_rows(count: int = 12, samples: int = 6) -> list[dict[str, Any]]:
    return [
        {"problem_id": f"p{i}", "sample": j, "text": rf"Ünd {j}: \boxed{{{2 * i + j % 3 // 2}}}", "seed": j}
        for i in range(count)
        for j in range(samples)
    ]


def made(tmp_path: Path, name: str, rollouts: str, **keys: Any) -> dict[str, bytes]:
    """What a run writes, without what names its files."""
    problems = write_rows(tmp_path / "problems.jsonl", problem_rows())
    options = {"problems": problems, "k": 3, "mixture": "hard_plus_easy", "test_share": 0.3, **keys}
    folder = bundle(BundleConfig(rollouts, str(tmp_path / name), **options))
    found = {file: data for file, data in files_of(folder).items() if file not in OWN_TO_A_RUN}
    return {**found, "README.md": found["README.md"].replace(rollouts.encode(), b"")}


def test_in_many_parts_comes_what_comes_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "r.jsonl", rollout_rows())
    many = made(tmp_path, "many", path)
    monkeypatch.undo()
    assert made(tmp_path, "one", path) == many
    assert {"train.jsonl", "test.jsonl", "test-rollouts.jsonl"} <= many.keys()


def test_the_problems_of_a_bundle_do_not_depend_on_the_order_of_other_problems(tmp_path: Path) -> None:
    rows_of = rollout_rows()
    order = random.Random(1).sample(range(12), 12)
    by_sample = [
        row
        for j in range(6)
        for i in order
        for row in rows_of
        if row["sample"] == j and row["problem_id"] == f"p{i}"
    ]
    assert made(tmp_path, "a", write_rows(tmp_path / "a.jsonl", rows_of)) == made(
        tmp_path, "b", write_rows(tmp_path / "b.jsonl", by_sample)
    )


def as_chunks(folder: Path, rows_of: list[dict[str, Any]]) -> str:
    for at in range(0, len(rows_of), 10):
        write_rows(folder / f"{at // 10:06d}.jsonl", rows_of[at : at + 10])
    return str(folder)


@pytest.mark.parametrize("naming", [str, lambda folder: f"{folder}/*.jsonl"])
def test_shards_are_read_as_they_are(naming: Callable[[Any], str], tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir()
    folder = as_chunks(tmp_path / "chunks", rollout_rows())
    whole = made(tmp_path, "whole", write_rows(tmp_path / "r.jsonl", rollout_rows()))
    assert made(tmp_path, "shards", naming(folder)) == whole


def test_parquet_has_the_same_bundles_and_is_found_by_the_name_of_the_other(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r.jsonl", rollout_rows())
    made(tmp_path, "jsonl", path)
    found = made(tmp_path, "parquet", path, format="parquet")
    assert not any(name.endswith(".jsonl") and name.startswith("t") for name in found)
    for name, kind in (("train", Bundle), ("test", Bundle), ("test-rollouts", Rollout)):
        named = str(tmp_path / "parquet" / f"{name}.jsonl")
        assert read(kind, named) == read(kind, str(tmp_path / "jsonl" / f"{name}.jsonl"))
        assert shards(named) == sorted(map(str, (tmp_path / "parquet").glob(f"{name}-0*.parquet")))
    assert len(shards(str(tmp_path / "parquet" / "train.jsonl"))) > 1
    assert b"path: train-*.parquet" in found["README.md"]
    Path(shards(str(tmp_path / "parquet" / "train.jsonl"))[0]).unlink()
    with pytest.raises(InputError, match=r"train\.jsonl: no such file"):  # one of its shards is missing
        read(Bundle, str(tmp_path / "parquet" / "train.jsonl"))


def test_large_bundles_are_written_as_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "PARQUET_CHARACTERS", 500)
    found = made(tmp_path, "out", write_rows(tmp_path / "r.jsonl", rollout_rows()))
    assert any(name.startswith("train-00000-of-") for name in found)
    with pytest.raises(InputError, match="format 'csv': expected jsonl or parquet"):
        made(tmp_path, "csv", str(tmp_path / "r.jsonl"), format="csv")


@pytest.mark.parametrize("step", ["spill_piece", "bundle_part", "write_shard"])
def test_a_run_that_was_stopped_goes_on_where_it_was(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "r.jsonl", rollout_rows())
    whole = made(tmp_path, "whole", path)
    module = {"spill_piece": ingest, "bundle_part": build, "write_shard": splits}[step]
    function, calls = getattr(module, step), []

    def stopping(task: Any) -> Any:
        calls.append(task)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return function(task)

    monkeypatch.setattr(module, step, stopping)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, "out", path)
    again = []
    monkeypatch.setattr(module, step, lambda task: (again.append(task), function(task))[1])
    assert made(tmp_path, "out", path) == whole
    if step != "write_shard":  # which looks itself whether its shard is there
        assert calls[0] not in again


def test_a_refused_run_leaves_nothing_and_does_not_take_what_was_there(tmp_path: Path) -> None:
    rows_of = rollout_rows()
    path = write_rows(tmp_path / "r.jsonl", [*rows_of, rows_of[3]])
    twice = r"r\.jsonl:73: id .*'p0'.* was already used at .*r\.jsonl:4"
    with pytest.raises(InputError, match=twice):
        made(tmp_path, "out", path)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".mine").write_text("")
    with pytest.raises(InputError, match=twice):
        made(tmp_path, "out", path)
    assert files_of(tmp_path / "out") == {".mine": b""}


def test_own_problems_are_numbered_over_all_slices(tmp_path: Path) -> None:
    rows_of = [
        {"problem": f"{i % 9} + 1?", "answer": str(i % 9 + 1), "text": rf"{i} \boxed{{{i % 9 + 1}}}"}
        for i in range(40)
    ]
    path = write_rows(tmp_path / "r.jsonl", rows_of)
    folder = bundle(BundleConfig(path, str(tmp_path / "out"), k=2))
    bundles = read(Bundle, str(folder / "train.jsonl"))
    assert {b.problem_id: b.problem for b in bundles} == {str(i): f"{i} + 1?" for i in range(9)}
    clash = {"problem": "Other?", "answer": "1", "text": "t", "problem_id": "7"}
    with pytest.raises(InputError, match=r"r\.jsonl:41: problem_id '7' is used at .*r\.jsonl:8 for another"):
        bundle(BundleConfig(write_rows(tmp_path / "r.jsonl", [*rows_of, clash]), str(tmp_path / "b"), k=2))
    other = {**rows_of[0], "answer": "5"}
    with pytest.raises(InputError, match=r"r\.jsonl:41: answer '5', but .*r\.jsonl:1 has '1'"):
        bundle(BundleConfig(write_rows(tmp_path / "r.jsonl", [*rows_of, other]), str(tmp_path / "b"), k=2))


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_slices_are_the_file(size: int, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", rollout_rows(3))
    from a2r_train.data.files import rows_of

    found = [(part.place(line), row) for part in slices(path, size) for line, row in rows_of(part)]
    assert found == list(rows(path))


def test_slices_of_parquet_are_the_file(tmp_path: Path) -> None:
    import pyarrow

    path = str(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rollout_rows(5)), path, row_group_size=4)
    from a2r_train.data.files import rows_of

    parts = list(slices(path, 1))
    assert len(parts) == 8
    assert [(p.place(n), row) for p in parts for n, row in rows_of(p)] == list(rows(path))


def test_a_mapped_column_that_a_later_slice_lacks_is_named(tmp_path: Path) -> None:
    rows_of = [{**row, "out": row["text"]} for row in rollout_rows()]
    rows_of[60:] = rollout_rows()[60:]
    path = write_rows(tmp_path / "r.jsonl", rows_of)
    with pytest.raises(InputError, match=r"r\.jsonl:61: no column 'out', which earlier rows have"):
        made(tmp_path, "out", path, columns=json.dumps({"text": "out"}))


def test_what_is_left_is_told_with_a_rate() -> None:
    rate = processes.Rate("bundle: reading", 100, "MB", before=20)
    rate.add(40)
    assert rate.line(10.0) == "bundle: reading: 60 of 100 MB, 4 a second, 10 s left"
