"""`a2r plot`: the curves of a training."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r

from a2r_train.commands.plot import PANELS, curves, history, plot
from a2r_train.errors import InputError

PNG = b"\x89PNG"


def state(path: Path, steps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log: list[dict[str, Any]] = [
        {"step": n, "reward": n / 10, "reward/n_correct=0": 0.1, "reward/n_correct=4": 1.0, "entropy": 1 / n,
         "frac_reward_zero_std": 0.5, "completions/mean_length": 30.0 + n} for n in range(1, steps + 1)
    ]  # fmt: skip
    path.write_text(json.dumps({"log_history": [*log, {"step": steps, "train_loss": 0.3}]}))


def test_curves_of_a_run_and_of_one_that_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state(tmp_path / "checkpoint-9" / "trainer_state.json", 9)
    state(tmp_path / "checkpoint-10" / "trainer_state.json", 10)
    assert len(history(str(tmp_path))) == 11
    found = {title: curves(history(str(tmp_path)), keys) for title, keys in PANELS.items()}
    assert found["reward by number of correct references"] == {
        "n_correct=0": [(n, 0.1) for n in range(1, 11)],
        "n_correct=4": [(n, 1.0) for n in range(1, 11)],
    }
    assert found["reward"] == {"reward": [(n, n / 10) for n in range(1, 11)]}
    assert found["loss"] == {}
    assert a2r("plot", str(tmp_path)) == 0
    assert capfd.readouterr().out == f"{tmp_path}/curves.png\n"
    first = (tmp_path / "curves.png").read_bytes()
    assert first.startswith(PNG)
    state(tmp_path / "trainer_state.json", 20)
    plot(str(tmp_path))
    assert (tmp_path / "curves.png").read_bytes() != first
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_copy_of_a_checkpoint_is_not_the_newest(tmp_path: Path) -> None:
    for name, steps in (("checkpoint-9", 9), ("checkpoint-best", 3), ("checkpoint-30-copy", 2)):
        state(tmp_path / name / "trainer_state.json", steps)
    assert len(history(str(tmp_path))) == 10


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no trainer_state.json here; expected the output folder of sft or grpo"
    ):
        plot(str(tmp_path))
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}')
    with pytest.raises(InputError, match="has logged nothing yet"):
        plot(str(tmp_path))
