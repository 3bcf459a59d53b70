"""`vote_fallback`: rows in which the vote of the references answers where a synthesis cannot be read."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from conftest import Script
from test_skip_agreement import AGREED, CONTESTED, bundles_of

from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.kept import rescore
from a2r_train.evaluate.pooled import pool
from a2r_train.evaluate.report.pairs import kind

UNSOLVED = ["2", "2", "3", "3"]


@pytest.fixture
def falling(config: EvaluateConfig, tmp_path: Path) -> EvaluateConfig:
    """One unanimous bundle, two contested ones whose vote is right, and one whose vote is wrong."""
    bundles = bundles_of(tmp_path / "some.jsonl", [AGREED, CONTESTED, CONTESTED, UNSOLVED])
    control = str(copytree(config.base, tmp_path / "control"))
    return replace(
        config, bundles=bundles, rollouts="", temperature=0.0, no_references=control, vote_fallback=True
    )


def unreadable_of_p1_and_p3(asked: str) -> str:
    return "so it may be" if "Number 1" in asked or "Number 3" in asked else r"\boxed{2}"


def rows_of(results: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    return {row["name"]: (row["accuracy"], row["unparsable"], row["tokens"]) for row in results["rows"]}


def test_the_vote_counts_where_the_synthesis_cannot_be_read(falling: EvaluateConfig, script: Script) -> None:
    script(unreadable_of_p1_and_p3)
    results = evaluate(falling)
    rows = rows_of(results)
    assert rows["synthesizer/base"][:2] == (0.0, 0.5)
    accuracy, unparsable, tokens = rows["synthesizer/base+fallback"]
    assert (accuracy, unparsable) == (0.25, 0.5)  # of p1 the vote is right, of p3 it is wrong
    assert tokens == rows["synthesizer/base"][2]
    assert rows["synthesizer/no_references+fallback"][:2] == (0.25, 0.5)
    (note,) = [row["note"] for row in results["rows"] if row["name"] == "synthesizer/base+fallback"]
    assert note == "50 % not readable, answered by their vote"
    assert not rescore(Path(falling.output_dir)).said
    plain = evaluate(replace(falling, vote_fallback=False, output_dir=f"{falling.output_dir}-plain"))
    assert rows_of(plain) == {name: row for name, row in rows.items() if not name.endswith("+fallback")}


def test_the_system_leaves_unanimous_bundles_to_the_vote_as_well(
    falling: EvaluateConfig, script: Script
) -> None:
    script(unreadable_of_p1_and_p3)
    system = replace(falling, skip_agreement=1.0, output_dir=f"{falling.output_dir}-system")
    rows = rows_of(evaluate(system))
    assert rows["synthesizer/base"][0] == rows["synthesizer/no_references+vote"][0] == 0.25
    assert rows["synthesizer/base+fallback"][0] == rows["synthesizer/no_references+fallback"][0] == 0.5
    evaluate(falling)
    for row in ("synthesizer/base+fallback", "synthesizer/no_references+fallback"):
        assert "right in 50.0 %" in pool([system.output_dir], row, ["maj@4"])[0]
        with pytest.raises(InputError, match=r"skip_agreement is "):
            pool([system.output_dir, falling.output_dir], row, ["maj@4"])


def test_the_kind_of_a_row_is_that_of_its_model() -> None:
    assert kind("synthesizer/base+fallback") == "untrained"
    assert kind("synthesizer/sft+grpo+fallback@T") == kind("synthesizer/no_references+fallback") == "trained"


def test_there_must_be_a_synthesizer(falling: EvaluateConfig) -> None:
    with pytest.raises(InputError, match="vote_fallback: needs a synthesizer"):
        evaluate(replace(falling, base=""))
