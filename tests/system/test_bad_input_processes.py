"""Bad input in a process of its own: its exit status, and the one line that it leaves."""

from pathlib import Path
from typing import Any

import faults
import pytest
from bad_inputs import BAD_INPUTS, say

CASES = {
    case.stage: case
    for case in BAD_INPUTS
    if case.name in ("a column is missing", "bundles with a wrong count", "a broken line")
}


@pytest.fixture(scope="module")
def inputs(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return faults.inputs_of(tmp_path_factory.mktemp("inputs"), tiny)


@pytest.mark.parametrize("stage", faults.STAGES)
def test_a_process_ends_with_status_2_and_one_line(
    stage: str, inputs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    said = say(CASES[stage], inputs, tmp_path)
    assert said.status == 2
    assert CASES[stage].says in said.line
