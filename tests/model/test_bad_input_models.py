"""Each mistake that is noticed with a model at hand ends with status 2 and one line, and nothing is written
or lost.
"""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from bad_inputs import BAD_INPUTS, NO_WEIGHTS, BadInput
from conftest import a2r, files_of, options
from faults import inputs_of
from refusing import assert_refused, named

from a2r_train.engines import EngineArguments, load_engine
from a2r_train.errors import InputError


@pytest.fixture(scope="module")
def inputs(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return inputs_of(tmp_path_factory.mktemp("inputs"), tiny)


@pytest.mark.parametrize("case", [case for case in BAD_INPUTS if case.model], ids=named)
def test_it_is_refused_in_one_line(
    case: BadInput,
    inputs: dict[str, dict[str, Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(case, inputs[case.stage], tmp_path, capfd)


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [("explore", "temperature", "0.5"), ("bundle", "k", "3"), ("evaluate", "samples", "2")],
)
def test_a_finished_folder_is_no_place_for_another_run(
    stage: str,
    key: str,
    value: str,
    inputs: dict[str, dict[str, Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = options({**inputs[stage], "output_dir": tmp_path / "out"})
    assert a2r(stage, *run) == 0
    before = files_of(tmp_path)
    capfd.readouterr()
    assert a2r(stage, *run, f"--{key}", value) == 2
    error = capfd.readouterr().err
    assert f"{tmp_path}/out: belongs to another run ({key}: " in error
    assert f"{value} here); name another output folder, or remove this one" in error
    assert error.count("\n") == 1
    assert files_of(tmp_path) == before


def test_solve_wants_weights_of_both_models(
    tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copytree(tiny, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert a2r("solve", "2?", "--explorer", str(folder), "--synthesizer", tiny) == 2
    assert f"{folder}: {NO_WEIGHTS}" in capfd.readouterr().err


def test_an_engine_refuses_an_unknown_dtype(tiny: str) -> None:
    with pytest.raises(InputError, match="dtype 'bf16'"):
        load_engine(tiny, EngineArguments(dtype="bf16"))
