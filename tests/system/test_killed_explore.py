"""`a2r explore` killed between two chunks."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import options, write_rows

from a2r_train.data.explore import ExploreConfig, explore


def test_a_run_that_is_killed_ends_with_the_same_rollouts(tiny: str, tmp_path: Path) -> None:
    many = [{"id": f"p{i}", "problem": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(24)]
    problems = write_rows(tmp_path / "many.jsonl", many)
    sizes = {"samples_per_problem": 2, "max_completion_tokens": 64, "chunk_problems": 1}
    whole = explore(ExploreConfig(problems, tiny, str(tmp_path / "whole"), **sizes))  # type: ignore[arg-type]
    cut = ExploreConfig(problems, tiny, str(tmp_path / "cut"), **sizes)  # type: ignore[arg-type]
    given = options({"problems": problems, "model": tiny, "output_dir": cut.output_dir, **sizes})
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "a2r_train.cli", "explore", *given], stderr=log)
        while process.poll() is None and len(list(Path(cut.output_dir).glob("chunks/0*.jsonl"))) < 3:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    made = {path: path.stat().st_mtime_ns for path in Path(cut.output_dir).glob("chunks/0*.jsonl")}
    assert 3 <= len(made) < len(many)
    assert (
        "explore: 1 of 24 chunks, 2 rollouts, " in (tmp_path / "log").read_text()
    )  # no terminal, so lines for a bar
    assert explore(cut).read_bytes() == whole.read_bytes()
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())
