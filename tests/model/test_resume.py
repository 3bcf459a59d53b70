"""What a training may go on from: a checkpoint with its optimizer, of as many processes as there are now, on
all machines.
"""

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import options
from safetensors.torch import load_file
from test_train import files, sft_arguments  # noqa: F401

from a2r_train.config import parse
from a2r_train.data.bundles import Bundles
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.train import run, sft
from a2r_train.train.resume import last_checkpoint, remove_half_written


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the folder of a training whose checkpoint these processes have saved, on a machine with two."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def open_one(saved: int, processes: int, **more: Any) -> bool:
        keys = {"bundles": "b.jsonl", "model_name_or_path": "m", "output_dir": tmp_path / "out"}
        parsed = parse(sft.ARGUMENTS, options({**keys, "use_cpu": True, "report_to": "none", **more}))
        run.output.prepare(tmp_path / "out", run.resolved(*parsed), lock="")
        checkpoint = tmp_path / "out" / "checkpoint-1"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        for rank in range(saved):
            (checkpoint / f"rng_state_{rank}.pth").touch()
        state = SimpleNamespace(
            num_processes=processes, is_main_process=False, main_process_first=nullcontext
        )
        monkeypatch.setattr(run, "PartialState", lambda: state)
        return run.open_folder(*parsed, PromptConfig(), Bundles(""))

    return open_one


@pytest.mark.parametrize(
    ("saved", "processes", "more"),
    [(4, 4, {}), (2, 2, {}), (2, 4, {"save_on_each_node": True}), (4, 4, {"save_on_each_node": True})],
)
def test_as_many_processes_go_on(saved: int, processes: int, more: dict[str, Any], opened: Any) -> None:
    assert not opened(saved, processes, **more)


@pytest.mark.parametrize(
    ("saved", "processes", "more"), [(2, 4, {}), (4, 2, {}), (8, 4, {"save_on_each_node": True})]
)
def test_two_machines_are_not_one(saved: int, processes: int, more: dict[str, Any], opened: Any) -> None:
    with pytest.raises(InputError, match=f"saved by {saved} processes, but {processes} would resume"):
        opened(saved, processes, **more)


@pytest.mark.parametrize("name", ["checkpoint-9-good", "checkpoint-best", "checkpoint-", "checkpoint-9.tar"])
def test_what_a_user_keeps_beside_the_checkpoints_is_left_alone(name: str, tmp_path: Path) -> None:
    for step in (2, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        (checkpoint / "optimizer.pt").touch()
    kept, half = tmp_path / name, tmp_path / "checkpoint-11"
    half.mkdir()
    if name.endswith(".tar"):
        kept.touch()
    else:
        shutil.copytree(tmp_path / "checkpoint-2", kept)
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    remove_half_written(str(tmp_path))
    assert kept.exists()
    assert not half.exists()


def test_weights_alone_are_nothing_to_go_on_from(
    files: Path,  # noqa: F811
    tiny: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """transformers would: with a new optimizer, and the first learning rate once more."""
    caplog.set_level("INFO")
    more = ("--max_steps", "4", "--save_steps", "2", "--save_only_model", "true")
    given = sft_arguments(files, tiny, "sft", *more)
    assert sft.main(given) == 0
    assert "yellow, save_only_model: checkpoints have no optimizer: a run that is killed" in caplog.text
    out = files / "sft"
    whole = load_file(out / "model.safetensors")
    for name in ("done.json", "model.safetensors", "trainer_state.json"):
        (out / name).unlink()
    shutil.rmtree(out / "checkpoint-4")
    assert sft.main([*given, "--resume_from_checkpoint", str(out / "checkpoint-2")]) == 2
    says = "checkpoint-2 is not a complete checkpoint (no optimizer, as with save_only_model)"
    assert says in capsys.readouterr().err
    assert sft.main(given) == 0
    again = load_file(out / "model.safetensors")
    assert all(whole[name].equal(again[name]) for name in whole)
