"""Two rows of one problem with different golds are refused by every stage that reads problems."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from a2r_train.commands.init import guessed
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, load_problems
from a2r_train.data.rollouts import load_rollouts
from a2r_train.errors import InputError

SUMS = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(9)]
CHOICE = {"problem": "Which?", "options": ["red", "green"], "answer": "A"}
Rows = list[dict[str, Any]]


def _init(path: str, _folder: Path) -> None:
    guessed(path)


def _explore(path: str, _folder: Path) -> None:
    load_problems(ExploreConfig(path, "m", "out"))


def _rollouts(folder: Path) -> str:
    rows = [
        {"problem_id": str(i), "sample": n, "text": rf"So \boxed{{{i + 1}}}, by way {n}"}
        for i in range(9)
        for n in range(4)
    ]
    return write_rows(folder / "rollouts.jsonl", rows)


def _bundle(path: str, folder: Path) -> None:
    bundle(BundleConfig(_rollouts(folder), str(folder / "out"), path))


def _probe(path: str, folder: Path) -> None:
    load_rollouts(path, _rollouts(folder))


DOORS = pytest.mark.parametrize("door", [_init, _explore, _bundle, _probe])


@DOORS
@pytest.mark.parametrize(
    "more", [{"problem": " What is  0 + 1?", "answer": "99"}, {**SUMS[0], "answer": "2/3"}]
)
def test_one_text_with_two_golds_is_one_line_with_both_rows(
    door: Callable[[str, Path], None], more: dict[str, Any], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*SUMS, more])
    says = "row 1, problem '0', and row 10, problem '9', have the same text but the answers '1' and "
    with pytest.raises(InputError, match=f"{says}'{more['answer']}'; correct one"):
        door(path, tmp_path)


@DOORS
@pytest.mark.parametrize(
    "more",
    [{**SUMS[0], "answer": "1.0"}, {**SUMS[0], "answer": "2/2"}, CHOICE | {"problem": "What is 0 + 1?"}],
)
def test_equal_golds_and_other_options_contradict_nothing(
    door: Callable[[str, Path], None], more: dict[str, Any], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "p.jsonl", [*SUMS, more])
    door(path, tmp_path)
    assert len(load_problems(ExploreConfig(path, "m", "out"))) == len(SUMS) + 1


@DOORS
@pytest.mark.parametrize("verifier", ["math", "exact"])
def test_repeated_problems_are_counted(
    door: Callable[[str, Path], None], verifier: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each would count once more in every mean, and narrow its interval."""
    more = [{**SUMS[at], "problem": f"{SUMS[at]['problem']} "} for at in (3, 0)]
    door(
        write_rows(tmp_path / "p.jsonl", [{**row, "verifier": verifier} for row in [*SUMS, *more]]), tmp_path
    )
    said = "p.jsonl: 2 problems repeat the text of an earlier one, as row 10 that of row 4"
    assert [said in record.message for record in caplog.records if "repeat" in record.message] == [True]


@pytest.mark.parametrize(("answer", "refused"), [("B", True), ("A", False)])
def test_the_options_belong_to_the_problem(answer: str, refused: bool, tmp_path: Path) -> None:
    other = CHOICE | {"options": ["green", "red"], "answer": "B"}
    path = write_rows(tmp_path / "p.jsonl", [CHOICE, other, CHOICE | {"answer": answer}])
    config = ExploreConfig(path, "m", "out")
    if not refused:
        assert len(load_problems(config)) == 3
        return
    with pytest.raises(InputError, match="row 1, problem '0', and row 3, problem '2'"):
        load_problems(config)


def test_the_verifier_of_the_recipe_tells_what_is_equal(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", [SUMS[0], SUMS[0] | {"answer": "1.0"}])
    with pytest.raises(InputError, match="have the same text"):
        load_problems(ExploreConfig(path, "m", "out", verifier="exact"))
    assert len(load_problems(ExploreConfig(path, "m", "out"))) == 2
