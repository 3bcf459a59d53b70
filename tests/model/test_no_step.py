"""A training whose rows fill no batch is refused: it would end at once, with the weights of its base."""

from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_with, options, write_rows

from a2r_train.data.read import read
from a2r_train.records import Bundle, Problem, as_row
from a2r_train.train import grpo, preflight, run, sft

GRPO = {
    "num_generations": 4, "per_device_train_batch_size": 32, "max_completion_length": 16,
}  # fmt: skip
SFT = {"per_device_train_batch_size": 8, "dataloader_drop_last": True}


@pytest.fixture
def keys(tiny: str, tmp_path: Path) -> dict[str, Any]:
    """Four bundles."""
    bundles = [bundle_with(Problem(f"p{i}", f"{i} more?", "5"), ["5", "7"]) for i in range(4)]
    return {
        "bundles": write_rows(tmp_path / "bundles.jsonl", map(as_row, bundles)),
        "model_name_or_path": tiny, "output_dir": tmp_path / "out", "use_cpu": True, "report_to": "none",
        "save_strategy": "no",
    }  # fmt: skip


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As where the preflight sees nothing."""
    monkeypatch.setattr(preflight, "batches", lambda *_: [])
    return monkeypatch


def with_targets(keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    rows = [{"bundle_id": b.id, "text": r"\boxed{5}"} for b in read(Bundle, str(keys["bundles"]))]
    return {**keys, **SFT, "targets": write_rows(folder / "targets.jsonl", rows)}


@pytest.mark.parametrize("length", [("max_steps", 3), ("num_train_epochs", 2)])
@pytest.mark.parametrize("more", [{}, {"dry_run": True}])
@pytest.mark.parametrize("stage", [grpo, sft])
def test_it_is_refused_before_it_starts(
    stage: Any,
    more: dict[str, Any],
    length: tuple[str, int],
    keys: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {**keys, **GRPO} if stage is grpo else with_targets(keys, tmp_path)
    assert stage.main(options({**given, **more, length[0]: length[1]})) == 2
    error = capsys.readouterr().err
    assert "takes 8 " in error
    assert "but there are only 4, so nothing would be trained" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unchecked")
def test_rows_are_counted_again_where_targets_were_drawn_and_packed(
    keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(options({**with_targets(keys, tmp_path), "num_train_epochs": 1})) == 2
    assert "takes 8 rows, but there are only 4" in capsys.readouterr().err
    assert not (tmp_path / "out" / "done.json").exists()


@pytest.mark.parametrize("stage", [grpo, sft])
def test_what_made_no_step_is_not_finished(
    stage: Any,
    keys: dict[str, Any],
    tmp_path: Path,
    unchecked: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unchecked.setattr(run, "check_rows", lambda _: None)
    given = {**keys, **GRPO} if stage is grpo else with_targets(keys, tmp_path)
    assert stage.main(options({**given, "max_steps": 3})) == 1
    assert "no step was made" in capsys.readouterr().err
    assert not [*(tmp_path / "out").glob("*.safetensors"), *(tmp_path / "out").glob("done.json")]
