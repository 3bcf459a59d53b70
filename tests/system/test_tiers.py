"""The budget of the fast tier: what it must not do fails, and its files load no torch."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OFFENDERS = """
import os, subprocess, sys, types

def test_is_cheap():
    assert True

def test_starts_a_process():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_forks():
    if not os.fork():
        os._exit(0)
    os.wait()

def test_is_slow():
    import budget
    budget.TEST_S = -1.0

def test_loads_torch():
    import budget
    budget.TEST_S = 5.0
    sys.modules["torch"] = types.ModuleType("torch")
"""


def collected_and_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_what_breaks_the_budget_fails(tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests" / "unit" / "test_offenders.py").write_text(OFFENDERS)
    done = collected_and_run(tmp_path, "-p", "budget")
    assert done.returncode == 1, done.stdout
    for name, says in {
        "test_starts_a_process": "starts a process, subprocess.Popen",
        "test_forks": "starts a process, os.fork",
        "test_is_slow": "takes 0.0 s of CPU, over -1",
        "test_loads_torch": "loads torch",
    }.items():
        assert f"test_offenders.py::{name} {says}" in done.stdout
    assert "4 failed, 1 passed" in done.stdout


def test_a_tier_that_takes_too_long_fails(tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests" / "unit" / "test_slow.py").write_text(
        "def test_is_fine():\n    import budget\n    budget.TIER_S = -1.0\n"
    )
    done = collected_and_run(tmp_path, "-p", "budget")
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert "test_slow.py::test_is_fine" in done.stdout


def test_no_file_of_the_fast_tier_loads_torch() -> None:
    done = collected_and_run(ROOT, "tests/unit", "--collect-only")
    assert done.returncode == 0, done.stdout[-2000:]
