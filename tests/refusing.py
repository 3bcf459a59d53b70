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
    """It ends with status 2 and the one line of the case, and writes nothing; `folder` is the working one.

    A trainer may have told of its preflight before.
    """
    given = {"output_dir": "out", **keys, **case.spoil(folder, keys)}
    before, paths = files_of(folder), sorted(folder.rglob("*"))
    capfd.readouterr()
    assert ended(case.stage, given) == 2
    out, err = capfd.readouterr()
    *before_it, line = err.splitlines()
    assert line.startswith("error: ")
    assert case.says in line
    assert all(one.startswith("preflight: ") for one in before_it), err
    assert out == ""
    assert files_of(folder) == before
    assert sorted(folder.rglob("*")) == paths  # nor an empty folder
    assert "executed" not in {path.name for path in paths}


def named(case: BadInput) -> str:
    return f"{case.stage}: {case.name}"
