"""Rollouts made elsewhere, read by a synthesizer."""

from pathlib import Path

import pytest
from conftest import write_rows
from test_outside import ROWS

from a2r_train.evaluate import EvaluateConfig, evaluate


def test_a_synthesizer_reads_them_too(tmp_path: Path, tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of references whose tokens nobody has counted no cost is given, which would be the synthesizer's
    alone.
    """
    path = write_rows(
        tmp_path / "foreign.jsonl", [{k: v for k, v in row.items() if k != "is_correct"} for row in ROWS]
    )
    results = evaluate(
        EvaluateConfig(path, str(tmp_path / "out"), tiny, k=2, draws=50, max_completion_tokens=4)
    )
    assert {row["name"]: row["n"] for row in results["rows"]}["synthesizer/base"] == 4
    assert results["diagnostics"]["outside"]["labelled"] == 0
    tokens = {row["name"]: row["tokens"] for row in results["rows"]}
    alone = {"synthesizer/alone", "synthesizer/alone@T"}
    assert {name for name, count in tokens.items() if count is not None} == alone
    assert {name for name, one in results["diagnostics"]["cost"].items() if one["flops"] is not None} == alone
    assert caplog.messages[-1].startswith(f"{path}: no token counts")
