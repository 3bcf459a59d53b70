"""`a2r rescore data/results`: the kept tables come out the same again, without a model and without a text."""

import re
from pathlib import Path

import pytest
from conftest import a2r

ROOT = Path(__file__).parents[2]
HEADLINES = ("gsm8k/evaluation-0.5b", "gsm8k-1.5b/evaluation-1.5b", "gsm8k-trained/first-1.5b")
TABLES = ("mawps", "mbpp", "gsm8k-levers/validation/", "gsm8k-levers-1.5b/", "gsm8k-trained/two-bundles")


def test_the_shipped_results_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert a2r("rescore", "data/results") == 0
    said = dict(re.findall(r"^data/results/(\S+): (.*)$", capsys.readouterr().out, re.MULTILINE))
    assert len(said) == 46
    whole = {folder for folder, line in said.items() if line == "same bytes"}
    assert whole == {*HEADLINES, *(folder for folder in said if "/votes-" in folder)}
    rollouts = "pass@1, pass@4, maj@4, maj@equal_tokens"
    by_rollouts = {folder for folder, line in said.items() if line.startswith(rollouts)}
    assert len(by_rollouts) == 10
    tables = [folder for folder, line in said.items() if line == "only the table is kept; not checked"]
    assert all(folder.startswith(TABLES) for folder in tables)
    assert len(whole) + len(by_rollouts) + len(tables) == len(said)
