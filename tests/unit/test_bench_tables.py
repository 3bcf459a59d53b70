"""The tables of the benchmarks: shares are of the right row, repeats are one line, a failure is told."""

from typing import Any

import bench_engines
import bench_grpo_step
import pytest


def test_the_steps_table_compares_the_fastest_micro_batch_of_each_way() -> None:
    def row(way: str, micro_batch: int, seconds: float, gib: float) -> dict[str, Any]:
        parts = dict.fromkeys(bench_grpo_step.COLUMNS, 0.5)
        found = {
            "base": "float32",
            "seconds": seconds,
            "steps_per_hour": 1.0,
            "trainer_gib": gib,
            "parts": parts,
        }
        return {"way": way, "micro_batch": micro_batch, **found}

    failed = {"way": "stock", "micro_batch": 64, "error": "out of memory"}
    rows = [row("stock", 8, 12.0, 40.0), row("stock", 16, 10.0, 50.0), row("ours", 16, 4.0, 30.0), failed]
    lines = bench_grpo_step.table(rows).splitlines()
    assert lines[2].startswith("| ours | float32 | 16 | 4.00 | 1.0 | 2.50 | 30.0 | 0.60 |")
    assert lines[3].startswith("| stock | float32 | 16 | 10.00 | 1.0 | 1.00 | 50.0 | 1.00 |")
    assert lines[4:] == ["stock, micro-batch 64: out of memory"]


def test_the_engines_table_has_shares_of_what_vllms_own_benchmark_reaches() -> None:
    def row(model: str, start: str, way: str, rate: int) -> dict[str, Any]:
        found = {"tokens": 9, "seconds": 1.0, "cpu_seconds": 1.0, "gpu_used": None, "start_s": 3.0}
        return {"model": model, "start": start, "way": way, "tokens_per_s": rate, **found}

    best = bench_engines.BENCH.name
    rows = [row("a", "ours", "ours, seeds", 95), row("a", "vllm", best, 80), row("a", "ours", best, 100)]
    rows += [row("b", "ours", "ours, seeds", 5), {"model": "b", "start": "sync", "error": "no"}]
    lines = bench_engines.table(rows).splitlines()
    assert [line.split(" | ")[6] for line in lines[2:6]] == ["0.95", "0.80", "1.00", ""]
    assert lines[6] == "b, sync: no"


def test_the_repeats_of_a_way_are_one_line_with_medians_and_the_range() -> None:
    def row(way: str, rate: int, start_s: float = 3.0, **more: Any) -> dict[str, Any]:
        found = {"tokens": 9, "seconds": 100 / rate, "cpu_seconds": rate / 10, "gpu_used": None, **more}
        names = {"model": "a", "start": "ours", "start_s": start_s, "way": way}
        return {**names, "tokens_per_s": rate, **found}

    best = bench_engines.BENCH.name
    rows = [row("ours, seeds", 70, repeat=1, same=None), row(best, 100, repeat=1)]
    rows += [row("ours, seeds", 90, repeat=2, same=0.5), row(best, 50, repeat=2)]
    rows += [row("ours, seeds", 80, repeat=3, same=0.6), row(best, 80, repeat=3)]
    rows += [row("ours, seeds", 40, start_s=4.0, repeat=1), row("ours, seeds", 20), row("ours, seeds", 10)]
    rows += [row(best, 200, run="another")]
    lines = [line.strip("| ").split(" | ") for line in bench_engines.table(rows).splitlines()[2:]]
    rates = ["80 (70 to 90)", "80 (50 to 100)", "40", "20", "10", "200"]
    assert [line[5] for line in lines] == rates, "two rows without `repeat` are two older measurements"
    assert [line[6] for line in lines] == ["1.00", "1.00", "0.50", "0.25", "0.12", "1.00"]
    assert lines[0][4] == "1.25"  # seconds of the median repeat
    assert lines[0][7] == "8.0"
    assert lines[0][10] == "0.55"


def test_ways_take_turns_and_same_compares_with_the_previous_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measure(_work: object, _engine: object, way: bench_engines.Way) -> tuple[dict[str, Any], list[int]]:
        asked.append(way.name)
        return {}, [1 if way.seeded else len(asked)]

    monkeypatch.setattr(bench_engines, "measure", measure)
    ways = [bench_engines.OURS, bench_engines.FREE, bench_engines.Way("ours, again", ours=True)]
    work: Any = None
    turns = bench_engines.by_turns(work, None, ways, 2)
    found = [next(turns)]
    assert asked == ["ours, seeds"], "a row comes before the next way is asked"
    found += turns
    assert asked == [way.name for way, _ in found] == [way.name for way in ways] * 2
    rows = [row for _, row in found]
    assert [row["repeat"] for row in rows] == [1, 1, 1, 2, 2, 2]
    assert [row["same"] for row in rows] == [None, None, None, 1, 0, 1]
    assert [row.get("again") for row in rows] == [None, None, 1, None, None, 1]


def test_every_start_names_ways_and_those_of_a_cpu_exist() -> None:
    assert all(start.ways for start in bench_engines.STARTS.values())
    assert set(bench_engines.ON_CPU) <= set(bench_engines.STARTS)
    names = [way.name for way in bench_engines.chosen(bench_engines.STARTS["ours"], "seeds;bench")]
    assert {"ours, seeds", "vllm bench"} <= set(names)
    assert "ours, again" not in names
