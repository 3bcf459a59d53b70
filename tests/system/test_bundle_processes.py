"""`a2r bundle` in several processes: the same bundles, no process left behind, and on after SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import files_of, write_rows
from launching import children, left_running, without_vllm

COUNT, SAMPLES = 400, 6
SCRIPT = """
import sys
from a2r_train.data import build, ingest
build.SMALL_BYTES, build.PART_BYTES, ingest.SLICE_BYTES = 0, 20_000, 20_000
from a2r_train.cli import main
sys.argv[0] = "a2r"
main()
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("large")
    problems = [{"id": f"p{i}", "problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(COUNT)]
    rollouts = [
        {"problem_id": f"p{i}", "sample": j, "text": rf"{'so ' * 40} {j}: \boxed{{{i + j % 2}}}"}
        for j in range(SAMPLES)
        for i in range(COUNT)
    ]
    paths = write_rows(folder / "p.jsonl", problems), write_rows(folder / "r.jsonl", rollouts)
    return ["bundle", "--problems", paths[0], "--rollouts", paths[1], "--k", "3", "--test_share", "0.2"]


def run(script: Path, recipe: list[str], out: Path, processes: int) -> "subprocess.Popen[bytes]":
    """Start the command from a script that does not guard itself, as a user's may be."""
    script.write_text(SCRIPT)
    options = ["--output_dir", str(out), "--processes", str(processes)]
    return subprocess.Popen([sys.executable, str(script), *recipe, *options], env=without_vllm())


def written(out: Path) -> dict[str, bytes]:
    return {
        name: data for name, data in files_of(out).items() if name not in ("config.yaml", "versions.json")
    }


@pytest.fixture(scope="module")
def whole(recipe: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder / "run.py", recipe, folder / "out", 1).wait() == 0
    return written(folder / "out")


def test_several_processes_make_the_same(recipe: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    assert run(tmp_path / "run.py", recipe, tmp_path / "out", 2).wait() == 0
    assert written(tmp_path / "out") == whole


def test_a_killed_run_leaves_no_process_and_goes_on(
    recipe: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kept: set[str] = set()
    for least in (1, 4, 8):
        process = run(tmp_path / "run.py", recipe, out, 2)
        while process.poll() is None and len(list(out.glob(".work/train/part-*/said.json"))) < least:
            time.sleep(0.02)
        others = children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not left_running(others, 30)
        now = {str(path) for path in out.glob(".work/train/part-*/said.json")}
        assert kept <= now
        kept = now
    assert run(tmp_path / "run.py", recipe, out, 2).wait() == 0
    assert written(out) == whole
    assert not (out / ".work").exists()


def test_a_stopped_run_waits_for_nothing(recipe: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = run(tmp_path / "run.py", recipe, out, 2)
    while process.poll() is None and not list(out.glob(".work/train/part-*/said.json")):
        time.sleep(0.02)
    others = children(process.pid)
    process.terminate()
    assert process.wait(30) == 143
    assert not left_running(others, 10)  # the tracker of the workers' resources ends after the parent
    assert run(tmp_path / "run.py", recipe, out, 2).wait() == 0
    assert written(out) == whole
