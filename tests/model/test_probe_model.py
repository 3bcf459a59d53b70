"""The untrained synthesizer under the probe: what scripted models answer, and the tiny one of data/tiny."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Script, a2r
from rich.console import Console

from a2r_train.commands.dry_run import preview
from a2r_train.data.read import read
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.evaluate.probe.asked import ANSWER, tasks
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.run import prepared, probe
from a2r_train.records import Problem


@pytest.fixture
def asked(problems: str, rollouts: str, other_tiny: str, tmp_path: Path) -> ProbeConfig:
    return ProbeConfig(
        rollouts, str(tmp_path / "out"), problems, other_tiny, draws=50, max_completion_tokens=5
    )


def first_shown(prompt: str) -> str:
    """The answer of the first reference of a prompt; 0 where it shows none."""
    found = re.search(r"Reference 1:.*?\\boxed\{(\d+)\}", prompt, re.DOTALL)
    return rf"\boxed{{{found[1] if found else 0}}}"


def test_a_model_that_knows_the_answers_is_best_left_alone(asked: ProbeConfig, script: Script) -> None:
    golds = {p.problem: p.answer for p in read(Problem, asked.problems)}
    script(lambda prompt: next(rf"\boxed{{{gold}}}" for text, gold in golds.items() if text in prompt))
    found = probe(asked)
    orders = found["model"]["two_orders"]["answered"]
    assert found["model"]["alone"]["value"] == 1.0
    assert (orders["pairs"], orders["right"], orders["at_chance"]) == (5, 1.0, False)
    assert found["predicted"]["trained"]["value"] > found["predicted"]["base"]["value"] - 1e-9
    assert found["tokens"]["measured"]
    assert (found["tokens"]["prompt"], found["tokens"]["synthesis"]) == (100, 7)


def test_a_model_that_copies_the_first_has_position_bias_and_no_verdict(
    asked: ProbeConfig, script: Script
) -> None:
    engine = script(first_shown)
    found = probe(asked)
    answered, named = found["model"]["two_orders"]["answered"], found["model"]["two_orders"]["named"]
    assert (answered["first"], answered["right"], answered["wrong"]) == (1.0, 0.0, 0.0)
    assert named["neither"] == 1.0  # it names a number that no reference has
    assert found["model"]["alone"]["value"] == 0.0
    assert found["predicted"]["untrained"]["new"] == 0.0
    assert len([p for p in engine.asked if "Reference 2:" in p and "Reference 3:" not in p]) == 2 * 2 * 5
    said = " ".join(found["recommendation"]["reasons"])
    assert "it goes with the first solution in 100.0" in said


def test_pairs_are_one_right_and_one_wrong_in_both_orders(asked: ProbeConfig) -> None:
    given = prepared(asked).asked
    assert {b.problem_id for b in given.bundles} == {f"p{i}" for i in range(1, 8)}
    assert len(given.pairs) == 5  # of the other two all rollouts are right, or none
    for right_first, wrong_first in given.pairs:
        assert [r.verdict for r in right_first.references] == ["correct", "incorrect"]
        assert right_first.references == wrong_first.references[::-1]
        assert right_first.id != wrong_first.id
    assert tasks(asked)[ANSWER].view == "references"


def test_a_probe_that_was_done_asks_nothing_again(asked: ProbeConfig, script: Script) -> None:
    script(first_shown)
    first = probe(asked)
    engine = script(first_shown)
    assert probe(asked) == first
    assert engine.asked == []


def test_dry_run_says_what_would_be_asked_and_writes_nothing(
    asked: ProbeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ("rollouts", "problems", "model", "output_dir")
    given = [text for key in keys for text in (f"--{key}", getattr(asked, key))]
    assert a2r("probe", *given, "--dry_run", "true") == 0
    assert "42 rollouts; 7 bundles and 5 pairs in two orders to answer" in capsys.readouterr().out
    assert not Path(asked.output_dir).exists()


def test_evaluate_says_what_it_can_tell_before_and_what_was_predicted_after(
    config: EvaluateConfig,
    script: Script,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preview(replace(config, dry_run=True), Console(width=300))
    assert (
        "7 problems x 1 bundle tell a trained synthesizer apart from the vote at" in capsys.readouterr().out
    )
    script(first_shown)
    with caplog.at_level(logging.INFO):
        evaluate(config)
    assert "a2r probe" not in caplog.text  # of 7 problems
    monkeypatch.setattr("a2r_train.evaluate.probe.beside.FEWEST", 7)
    with caplog.at_level(logging.INFO):
        evaluate(replace(config, output_dir=f"{config.output_dir}-more"))
    assert "a2r probe: a headroom of" in caplog.text


@pytest.mark.usefixtures("at_root")
def test_the_tiny_synthesizer_is_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, over solutions that its own kind of explorer writes: it tells right from wrong."""
    rows = []
    for problem in read(Problem, "data/tiny/test.jsonl")[:12]:
        for n in range(4):
            answer = int(problem.answer) + (n if n % 2 else 0)
            rows.append({"problem_id": problem.id, "sample": n, "text": rf"\boxed{{{answer}}}"})
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = a2r(
        "probe", "--rollouts", str(path), "--problems", "data/tiny/test.jsonl", "--model",
        "data/tiny/synthesizer", "--prompt", "recipes/tiny/prompt.yaml",
        "--output_dir", str(tmp_path / "out"),
        "--max_completion_tokens", "112", "--max_bundles", "12", "--max_pairs", "6", "--draws", "50",
    )  # fmt: skip
    assert status == 0
    found = json.loads((tmp_path / "out/probe.json").read_text())
    assert found["model"]["bundles"] == 12
    assert found["cost"] == {}  # nobody says who the explorer is
    assert found["model"]["two_orders"]["answered"]["pairs"] == 6
    assert "Will" in (tmp_path / "out/report.html").read_text()
    assert "Two orders" in capsys.readouterr().out
