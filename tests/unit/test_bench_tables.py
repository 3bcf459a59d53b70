"""The tables of the benchmarks: shares are of the right row, and one that failed is told."""

from typing import Any

import bench_engines
import bench_grpo_step


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


def test_every_start_names_ways_and_those_of_a_cpu_exist() -> None:
    assert all(start.ways for start in bench_engines.STARTS.values())
    assert set(bench_engines.ON_CPU) <= set(bench_engines.STARTS)
    names = [way.name for way in bench_engines.chosen(bench_engines.STARTS["ours"], "seeds;bench")]
    assert {"ours, seeds", "vllm bench"} <= set(names)
    assert "ours, again" not in names
