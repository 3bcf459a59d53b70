"""Every stage killed once in the middle by SIGKILL, and started again: it ends as an undisturbed run does."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import faults
import pytest
from launching import children, left_running

from a2r_train.train.resume import lacks

# What a killed run finds again and leaves as it is; bundle has nothing before its end.
SAVED = {
    **dict.fromkeys(faults.STAGES, "0*.jsonl"),
    **dict.fromkeys(faults.TRAINERS, "checkpoint-*/trainer_state.json"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return faults.write_inputs(tmp_path_factory.mktemp("inputs"))


Whole = Callable[[str], tuple[Path, faults.Run]]


@pytest.fixture(scope="module")
def whole_of(inputs: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The undisturbed run of a stage and its folder, made once."""

    @cache
    def run(stage: str) -> tuple[Path, faults.Run]:
        folder = tmp_path_factory.mktemp("whole")
        done = faults.run(stage, inputs[stage], folder)
        assert done.status == 0, done.says
        return folder, done

    return run


def saved(stage: str, cut: Path) -> list[Path]:
    """What a killed run has saved. A kill may fall into the writing of a trainer's state; chunks are renamed
    when they are whole.
    """
    found = (cut / "out").rglob(SAVED[stage])
    return [path for path in found if stage not in faults.TRAINERS or not lacks(path.parent)]


def has_saved(stage: str, cut: Path) -> bool:
    return stage == "bundle" or bool(saved(stage, cut))


@pytest.mark.parametrize("stage", faults.STAGES)
def test_killed_and_started_again_it_ends_the_same(
    stage: str, inputs: dict[str, dict[str, Any]], whole_of: Whole, tmp_path: Path
) -> None:
    keys = inputs[stage]
    folder, whole = whole_of(stage)
    killed, kept = None, dict[Path, int]()
    # Runs differ in speed: one may be done before it is killed.
    for number, share in enumerate((0.5, 0.7, 0.85, 0.35, 0.6, 0.8, 0.95, 0.25, 0.15, 0.05, 0.02)):
        cut = tmp_path / f"cut-{number}"
        delay_s = whole.work_s * share if stage == "bundle" else 0.0
        killed = faults.kill(stage, keys, cut, delay_s, once=partial(has_saved, stage, cut))
        kept = {path: path.stat().st_mtime_ns for path in saved(stage, cut)}
        if killed:
            break
    assert killed
    assert killed.status == -9
    assert kept or stage == "bundle"
    again = faults.run(stage, keys, cut)
    assert again.status == 0, again.says
    assert faults.difference(stage, folder / "out", cut / "out") == ""
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items()), (
        "what is complete is not made again"
    )
    assert stage not in faults.TRAINERS or "resuming from" in again.says


@pytest.mark.parametrize("stage", faults.TRAINERS)
def test_killed_after_its_last_step_a_training_takes_no_further_one(
    stage: str, inputs: dict[str, dict[str, Any]], whole_of: Whole, tmp_path: Path
) -> None:
    folder, _ = whole_of(stage)
    shutil.copytree(folder, tmp_path / "cut", symlinks=True)
    for name in ("model.safetensors", "trainer_state.json", "done.json"):
        (tmp_path / "cut/out" / name).unlink()
    again = faults.run(stage, inputs[stage], tmp_path / "cut")
    assert again.status == 0, again.says
    assert "its last step was saved before it ended" in again.says
    assert faults.difference(stage, folder / "out", tmp_path / "cut/out") == ""
    ours, theirs = ((at / "out/model.safetensors").read_bytes() for at in (folder, tmp_path / "cut"))
    assert ours == theirs


def test_a_stage_ends_with_a_killed_command() -> None:
    """SIGKILL leaves `a2r run` no time to pass anything on; Linux ends its stage by SIGTERM."""
    code = "from a2r_train.commands.run import wait; wait(['sleep', '60'])"
    command = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not (stage := children(command.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(stage) == 1
    command.kill()
    command.wait()
    assert not left_running(stage, 10)
