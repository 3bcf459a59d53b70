"""scripts/compare_evaluations.py: several evaluations side by side."""

import json
from pathlib import Path
from shutil import copytree

import compare_evaluations as comparing
import numpy as np
import pytest

from a2r_train.errors import InputError

ROOT = Path(__file__).parents[2]
LEVERS = ROOT / "data/results/gsm8k-levers/validation"


def setting(
    name: str, greedy: list[float], sampled: list[float] | None = None, problems: str = "abcd"
) -> comparing.Setting:
    values = np.array(greedy, dtype=float)
    drawn = None if sampled is None else np.array(sampled, dtype=float)
    return comparing.Setting(
        name, list(problems), np.array([0.0, 0, 1, 2]), np.array([0.0, 0, 1, 1]), values, drawn
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_table_of_the_kept_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert comparing.main([str(LEVERS), "--against", "reference"]) == 0
    assert capsys.readouterr().out in (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_the_figures_of_a_setting_are_those_of_its_evaluation() -> None:
    """Accuracies and the vote against results.json, which `a2r evaluate` made."""
    for name in ("plain-half", "explored-at-1.0"):
        found = comparing.load(LEVERS / name, name)
        rows = {
            row["name"]: row["accuracy"]
            for row in json.loads((LEVERS / name / "results.json").read_text())["rows"]
        }
        assert found.sampled is not None
        assert found.vote.mean() == pytest.approx(rows["maj@4"], abs=1e-6)
        assert found.greedy.mean() == pytest.approx(rows["synthesizer/grpo"], abs=1e-6)
        assert found.sampled.mean() == pytest.approx(rows["synthesizer/grpo@T"], abs=1e-6)


def test_lines_have_means_differences_and_accuracy_by_right_references() -> None:
    lines = comparing.table(
        [setting("worse", [0, 0, 0, 1]), setting("best", [1, 0, 1, 1], [0.5, 0, 1, 1])], "worse"
    )
    head, best, worse = cells(lines[0]), cells(lines[2]), cells(lines[3])
    assert head == [
        "setting",
        "vote",
        "greedy",
        "sampled",
        "mean",
        "mean against worse",
        "0 right",
        "1 right",
        "2 right",
    ]
    assert best[:5] + best[6:] == ["best", "50.0", "75.0", "62.5", "68.8", "37.5", "100.0", "100.0"]
    assert best[5].startswith("+43.8 (")
    assert worse == ["worse", "50.0", "25.0", "", "25.0", "", "0.0", "0.0", "100.0"]


def test_intervals_are_corrected_for_the_number_of_settings() -> None:
    many, few = np.random.default_rng(0).random((2, 400)).round()
    base = comparing.Setting("base", [str(i) for i in range(400)], np.zeros(400), np.zeros(400), few, None)
    others = [
        comparing.Setting(f"s{i}", base.problems, base.n_correct, base.vote, many, None) for i in range(5)
    ]

    def width(lines: list[str]) -> float:
        low, high = cells(lines[2])[5].split("(")[1].rstrip(")").split(" to ")
        return float(high) - float(low)

    assert width(comparing.table([base, *others], "base")) > width(comparing.table([base, others[0]], "base"))


def test_other_problems_and_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="b: not the problems of a, in their order"):
        comparing.table([setting("a", [0, 0, 0, 1]), setting("b", [0, 0, 0, 1], problems="abce")], "a")
    with pytest.raises(InputError, match="--against c: no such evaluation; expected one of a"):
        comparing.table([setting("a", [0, 0, 0, 1])], "c")


def test_what_is_no_evaluation_of_a_synthesizer_is_one_line_and_status_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert comparing.main([str(tmp_path), "--against", "x"]) == 2
    copytree(ROOT / "data/results/gsm8k/votes-4", tmp_path / "votes-4")
    assert comparing.main([str(tmp_path), "--against", "votes-4"]) == 2
    assert [record.getMessage().partition("; ")[0] for record in caplog.records] == [
        f"{tmp_path}: no evaluation below it",
        f"{tmp_path}/votes-4: no synthesizer over references",
    ]
