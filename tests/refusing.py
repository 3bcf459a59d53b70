"""Bad input in this process: what each row of scripts/proofs/bad_inputs.py promises."""

from pathlib import Path
from typing import Any

import pytest
from bad_inputs import BadInput
from conftest import a2r, files_of, options
from faults import TRAINERS


def ended(stage: str, keys: dict[str, Any]) -> int:
    """Run a stage; returns its exit status."""
    if stage not in TRAINERS:
        return a2r(stage, *options(keys))
    from a2r_train.train import grpo, sft

    return {"sft": sft, "grpo": grpo}[stage].main(options(keys))


def assert_refused(
    case: BadInput, keys: dict[str, Any], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends with status 2 and the one line of the case, and writes nothing; `folder` is the working one."""
    given = {"output_dir": "out", **keys, **case.spoil(folder, keys)}
    before, paths = files_of(folder), sorted(folder.rglob("*"))
    capfd.readouterr()
    assert ended(case.stage, given) == 2
    out, err = capfd.readouterr()
    assert case.says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert out == ""
    assert files_of(folder) == before
    assert sorted(folder.rglob("*")) == paths  # nor an empty folder
    assert "executed" not in {path.name for path in paths}


def named(case: BadInput) -> str:
    return f"{case.stage}: {case.name}"
