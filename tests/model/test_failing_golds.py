"""A program that fails the tests of its own problem is told before anything is sampled or trained."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.commands.init import guessed
from a2r_train.data.bundle import BundleConfig, built
from a2r_train.data.explore import ExploreConfig, prepared

PROMPT = "recipes/prompts/prompt-code.yaml"


def row(number: int, **more: Any) -> dict[str, Any]:
    """Of MBPP's shape; the tests of numbers 3 and 7 expect what no solution of theirs returns."""
    wanted = 2 if number in (3, 7) else 1
    made = {"code": "def f(a):\n    return a", "test_list": [f"assert f(1) == {wanted}"]}
    return {"task_id": f"own-{number}", "text": f"Write f, number {number}.", **made, **more}


def told(path: str, names: str = "own-3, own-7") -> str:
    return (
        f"{path}: the reference solution of 2 of 12 problems fails their own tests: {names}; correct "
        "the solution or the tests, or leave the problems out, because the trainers refuse them"
    )


def test_init_tells_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "p.jsonl", [row(i) for i in range(12)])
    guessed(path)
    assert told(path) in caplog.messages


def test_init_tells_it_of_rows_of_our_own_shape(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = []
    for at in range(12):
        known = row(at)
        shape = {"id": known["task_id"], "problem": known["text"], "answer": known["code"]}
        rows.append({**shape, "verifier": "python_tests", "metadata": {"test_list": known["test_list"]}})
    path = write_rows(tmp_path / "p.jsonl", rows)
    guessed(path)
    assert told(path) in caplog.messages


def test_nothing_is_told_of_right_ones(caplog: pytest.LogCaptureFixture) -> None:
    guessed("data/code/train.jsonl")
    assert "reference solution" not in caplog.text


def test_explore_tells_it(tmp_path: Path, speaking: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "p.jsonl", [row(i) for i in range(12)])
    prepared(ExploreConfig(problems=path, model=speaking, output_dir=str(tmp_path / "o"), prompt=PROMPT))
    assert told(path) in caplog.messages


def test_bundle_tells_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"```python\ndef f(a):\n    return {value}\n```" for value in ("a", "1 * a", "2", "3")]
    path = write_rows(tmp_path / "r.jsonl", [row(i, generations=texts) for i in range(12)])
    with built(BundleConfig(rollouts=path, output_dir=str(tmp_path / "o"), prompt=PROMPT)):
        assert told(path, "own-3, own-7") in caplog.messages
