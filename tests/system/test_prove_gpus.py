"""scripts/proofs/prove_gpus.py as a trial on the CPU: what it writes down, and that a part that fails does
not stop the others.
"""

import json
import sys
from pathlib import Path
from typing import Any

import prove_gpus
import pytest

NO_VLLM = ("A2R_TEST_WITHOUT_VLLM", "1")  # see tests/quick_start
Rows = list[dict[str, Any]]


def prove(monkeypatch: pytest.MonkeyPatch, output: Path, *options: str) -> Rows:
    monkeypatch.setattr(sys, "argv", ["prove_gpus.py", "--output", str(output), *options])
    prove_gpus.main()
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_one_part_in_two_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(*NO_VLLM)
    (row,) = prove(monkeypatch, tmp_path / "rows.jsonl", "--parts", "same", "--config", "ddp")
    assert row["pass"], row
    assert (row["part"], row["name"], row["status"], row["processes"]) == ("same", "ddp", 0, 2)
    assert len(row["losses"]) == 3
    assert row["moved"] > 1e-4


def test_what_fails_is_a_row_and_the_next_part_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: prove_gpus.Bench) -> None:
        raise RuntimeError("no luck")

    def slow(bench: prove_gpus.Bench) -> None:
        child = (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
        )
        bench.row("slow", "sleeps", False, bench.run("slow", prove_gpus.python("-c", child)))

    monkeypatch.setattr(prove_gpus, "PARTS", {"broken": broken, "slow": slow})
    rows = prove(monkeypatch, tmp_path / "rows.jsonl", "--parts", "broken,slow", "--timeout_s", "1")
    assert [row["pass"] for row in rows] == [False, False]
    assert rows[0]["error"] == "RuntimeError: no luck"
    assert rows[1]["status"] is None
    assert "out of time" in rows[1]["error"]
    late = prove(monkeypatch, tmp_path / "late.jsonl", "--parts", "broken", "--budget_s", "-1")
    assert late[0]["skipped"] == "no time left"


def test_scaling_on_two_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = ["--model", "data/tiny/explorer", "--parts"]
    prove(monkeypatch, tmp_path / "rows.jsonl", *given, "scaling_explore")
    monkeypatch.setenv(*NO_VLLM)  # which generates alone
    rows = prove(monkeypatch, tmp_path / "rows.jsonl", *given, "scaling_update")
    assert [row["status"] for row in rows] == [0, 0, 0], rows
    assert all(row["tokens_s"] > 0 for row in rows)
    assert [row["processes"] for row in rows[1:]] == [1, 2]
