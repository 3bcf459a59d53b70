"""Rows of a table whose answers have no vote: a random reference, the most frequent behaviour, the medoid."""

from typing import Any

import numpy as np
import pytest

from a2r_train.data.builder import bundle_of
from a2r_train.data.mixture import check_vote
from a2r_train.errors import InputError
from a2r_train.evaluate.diagnostics import diagnose
from a2r_train.evaluate.rows import selected
from a2r_train.evaluate.rows.row import bundle_votes, expected_vote, reference_rows
from a2r_train.evaluate.rows.selected import behaving_most, medoid, no_vote, selected_rows
from a2r_train.inference.adaptive import Adaptive
from a2r_train.records import CORRECT, INCORRECT, UNPARSABLE, Bundle, Problem, Reference
from a2r_train.verify import programs, sandbox

TESTS = {"test_list": ["assert f(2) == 4", "assert f(3) == 6"]}
ENDS = {
    "double": [["int", "0x4"], ["int", "0x6"]], "twice": [["float", (4.0).hex()], ["int", "0x6"]],
    "square": [["int", "0x4"], ["int", "0x9"]], "half": [["int", "0x4"]], "broken": [], "loop": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sandbox would say of programs that are named for what they do."""

    def run_once(runs: list[sandbox.Run]) -> list[sandbox.Ended]:
        import json

        return [sandbox.Ended("returned", json.dumps(ENDS[run.program])) for run in runs]

    monkeypatch.setattr(programs, "run_once", run_once)


def bundle(*answers: str, right: str = "double", verifier: str = "python_tests") -> Bundle:
    problem = Problem("p", "Double it.", "double", verifier, metadata=TESTS)
    references = [
        Reference(a, a, CORRECT if a in (right, "twice") else INCORRECT if a else UNPARSABLE, 9)
        for a in answers
    ]
    return bundle_of(problem, references, "p/0")


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        (("double", "square", "twice", "half"), [0, 2]),
        (("square", "square", "double", "double"), [0, 1, 2, 3]),
        (("broken", "broken", "loop", "double"), [3]),
        (("broken", "", "loop"), []),
        (("half", "double"), [0, 1]),
    ],
)
def test_the_most_frequent_behaviour(answers: tuple[str, ...], chosen: list[int]) -> None:
    assert behaving_most([bundle(*answers)]) == [chosen]


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        (["def f(a): return a + a", "def f(a): return 2 * a", "def f(a): return 3 * b"], [1]),
        (["a b", "a b", "c"], [0, 1]),
        (["x", "", "y"], [0, 2]),
        (["", ""], []),
    ],
)
def test_the_medoid(answers: list[str], chosen: list[int]) -> None:
    assert medoid(answers) == chosen


def test_rows_in_the_place_of_votes() -> None:
    bundles = [bundle("double", "square", "twice", "broken")]
    votes = bundle_votes(bundles)
    assert np.isnan(votes).all()
    assert [row.name for row in reference_rows(bundles, votes)] == ["pass@1", "pass@4"]
    rows = {row.name: row for row in selected_rows(bundles)}
    assert [*rows] == ["reference/random", "best-of-4/mbr-exec", "best-of-4/medoid"]
    assert rows["reference/random"].scores.tolist() == [0.5]
    assert rows["reference/random"].tokens == 9
    assert rows["best-of-4/mbr-exec"].scores.tolist() == [1.0]
    assert rows["best-of-4/mbr-exec"].tokens == 36
    assert "inputs of the hidden tests" in rows["best-of-4/mbr-exec"].note


def test_answers_of_one_s_own_that_have_no_vote_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selected, "has_vote", lambda _: False)
    rows = [row.name for row in selected_rows([bundle("a", "b", verifier="exact")])]
    assert rows == ["reference/random", "best-of-2/medoid"]


def test_the_reason() -> None:
    assert no_vote([bundle("double", verifier="math")]) == ""
    said = no_vote([bundle("double"), bundle("double", verifier="math")])
    assert said.startswith("No vote: answers of python_tests cannot be counted, so there are no rows maj@k.")


def test_nobody_votes() -> None:
    made = bundle("double", "double", "square")
    assert (made.majority_answer, made.majority_verdict) == ("", UNPARSABLE)
    assert expected_vote(["double", "square"], [CORRECT, INCORRECT], "python_tests") == 0.5


def test_diagnostics_leave_out_what_compares_with_votes() -> None:
    bundles = [bundle("double", "square")]
    found: dict[str, Any] = diagnose(bundles, bundle_votes(bundles), {})
    assert "by_majority" not in found
    assert found["flips"] == found["copy_rate"] == {}


def test_what_goes_by_votes_is_refused() -> None:
    with pytest.raises(InputError, match="hard_plus_easy needs the vote, but answers of python_tests have"):
        check_vote("hard_plus_easy", "python_tests")
    check_vote("balanced", "python_tests")
    check_vote("hard_plus_easy", "math")
    with pytest.raises(InputError, match="adaptive and skip_agreement need votes"):
        Adaptive().stops(["double", "square"], "python_tests")
