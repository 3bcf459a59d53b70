"""The probe as a process: 16,000 rollouts in under 20 s of two cores."""

import random
import resource
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, write_rows


def test_sixteen_thousand_rollouts_are_probed_in_twenty_seconds(tmp_path: Path) -> None:
    """Others' rollouts, so all are judged; in seconds of CPU of all its processes, as machines are shared."""
    rng = random.Random(0)
    rows = [
        {
            "problem": f"What is problem {i}?",
            "answer": str(i),
            "text": f"First. Then. So \\boxed{{{i if rng.random() < (i % 10) / 10 else rng.randrange(30)}}}",
            "completion_tokens": rng.randrange(20, 200),
        }
        for i in range(40, 2040)
        for _ in range(8)
    ]
    path = write_rows(tmp_path / "rollouts.jsonl", rows)
    command = [sys.executable, "-m", "a2r_train.cli", "probe", "--rollouts", path, "--output_dir", "out"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stderr
    assert "16,000 rollouts of 2,000 problems" in ended.stdout.replace("\n", " ")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 20, f"{used:.1f} s"
    assert (tmp_path / "out/probe.json").is_file()
