"""Each mistake that is noticed before a model is read ends with status 2 and one line."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from bad_inputs import BAD_INPUTS, BadInput
from conftest import ROOT
from faults import STAGES, inputs_of
from refusing import assert_refused, named


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("inputs")
    model = copytree(ROOT / "data/tiny/explorer", folder / "model")
    (model / "prompt.yaml").unlink()
    return inputs_of(folder, str(model))


@pytest.mark.parametrize("case", [case for case in BAD_INPUTS if not case.model], ids=named)
def test_it_is_refused_in_one_line_before_a_model_is_read(
    case: BadInput,
    inputs: dict[str, dict[str, Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(case, inputs[case.stage], tmp_path, capfd)


def test_every_case_has_a_name_of_its_own_and_a_stage_that_exists() -> None:
    names = [(case.stage, case.name) for case in BAD_INPUTS]
    assert len({*names}) == len(names) > 90
    assert {stage for stage, _ in names} == {*STAGES, "probe"}
    assert all(case.says for case in BAD_INPUTS)
