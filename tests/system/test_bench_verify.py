"""The benchmark of the verifier runs."""

import subprocess
import sys
from pathlib import Path

from a2r_train.data.read import read
from a2r_train.evaluate.kept_bundles import read_golds
from a2r_train.records import Rollout
from a2r_train.verify import judge_all

ROOT = Path(__file__).parents[2]


def test_on_real_rollouts_it_agrees_with_plain_math_verify_and_with_itself() -> None:
    folder = ROOT / "data/gsm8k-0.5b"
    rollouts, golds = str(folder / "rollouts.jsonl.xz"), str(folder / "golds.jsonl")
    script = [sys.executable, "scripts/benchmarks/bench_verify.py", rollouts, golds]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0 disagreements") == 2
    kept = read(Rollout, rollouts)
    known = read_golds(golds)
    judged = judge_all([(r.text, known[r.problem_id].answer, "math") for r in kept])
    assert [(j.verdict, j.answer) for j in judged] == [(r.verdict, r.answer) for r in kept]
