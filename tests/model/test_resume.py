"""What a training may go on from: a checkpoint of as many processes as there are now, on all machines."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import options

from a2r_train.config import parse
from a2r_train.data.bundles import Bundles
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.train import run, sft


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
