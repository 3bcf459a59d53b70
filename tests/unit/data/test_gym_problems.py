"""Problems of Reasoning Gym: by name, by a YAML file, and what is wrong with both."""

from pathlib import Path

import pytest

from a2r_train.data.gym import FREE
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.records import Problem

pytest.importorskip("reasoning_gym")
FILE = """
reasoning_gym:
  - {task: number_sequence, size: 3, seed: 1, config: {max_terms: 5}}
  - {task: number_sequence, size: 2}
"""


def test_tasks_by_name() -> None:
    problems = read(Problem, "reasoning_gym:number_sequence, chain_sum?size=3&seed=1")
    assert [p.source for p in problems] == ["number_sequence"] * 3 + ["chain_sum"] * 3
    assert problems == read(Problem, "reasoning_gym:number_sequence, chain_sum?size=3&seed=1")
    assert problems != read(Problem, "reasoning_gym:number_sequence, chain_sum?size=3&seed=2")
    first = problems[0]
    assert first.verifier == "reasoning_gym"
    assert first.metadata["task"] == "number_sequence"
    assert first.metadata["entry"]["answer"] == first.answer
    assert first.metadata["entry"]["question"] == first.problem


def test_a_long_drawing_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("a2r_train.data.processes.SAY_AFTER_S", 0.0)
    with caplog.at_level("INFO"):
        read(Problem, "reasoning_gym:chain_sum?size=3")
    assert "chain_sum: drawing: 1 of 3 problems" in caplog.text


def test_tasks_by_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(FILE)
    problems = read(Problem, str(path))
    assert len({p.id for p in problems}) == len(problems) == 5
    assert problems[0].metadata["config"] == {"max_terms": 5}


def test_an_entry_without_an_answer_has_an_example_or_none() -> None:
    (problem,) = read(Problem, "reasoning_gym:propositional_logic?size=1")
    assert problem.answer == problem.metadata["entry"]["metadata"]["example_answer"]
    (problem,) = read(Problem, "reasoning_gym:rush_hour?size=1")
    assert problem.answer == FREE


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("reasoning_gym:number_sequense", "no task 'number_sequense'; did you mean 'number_sequence'"),
        ("reasoning_gym:", "no task ''; it has"),
        ("reasoning_gym:chain_sum?size=0", "size is '0'; expected a whole number of at least 1"),
        ("reasoning_gym:chain_sum?seed=-1", "seed is '-1'"),
        ("reasoning_gym:chain_sum?sise=1", "unknown key 'sise'; did you mean 'size'"),
        ("reasoning_gym:composite?size=1", "the task refuses its config: Must specify"),
    ],
)
def test_names_that_say_nothing(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        read(Problem, name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tasks: [countdown]", "unknown key 'tasks'"),
        ("reasoning_gym: countdown", "a list of objects"),
        ("reasoning_gym: [countdown]", "a list of objects"),
        ("reasoning_gym: [{task: chain_sum, config: 3}]", "config is 3"),
        ("reasoning_gym: [{task: chain_sum, config: {min_terms: 0}}]", "the task refuses its config"),
        ("reasoning_gym: [{task: chain_sum, config: {no_such_key: 0}}]", "the task refuses its config"),
        ("reasoning_gym: [{size: 3}]", "no task ''"),
        ("reasoning_gym: [", "is not valid YAML"),
    ],
)
def test_files_that_say_nothing(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read(Problem, str(path))
