"""`a2r compare`: several evaluations side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import a2r

from a2r_train.errors import InputError
from a2r_train.evaluate import comparison as comparing

ROOT = Path(__file__).parents[2]
HEADLINES = ["data/results/gsm8k-1.5b/evaluation-1.5b", "data/results/gsm8k-trained/first-1.5b"]


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


def test_the_figures_of_a_setting_are_those_of_its_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracies and the vote against results.json, which `a2r evaluate` made."""
    monkeypatch.chdir(ROOT)
    assert a2r("compare", *HEADLINES) == 0
    lines = [cells(line) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0] for line in lines] == [HEADLINES[1], HEADLINES[0]]  # the best first
    assert [line[5] != "" for line in lines] == [True, False]  # against the first that is named
    for folder, *shown in lines:
        results = json.loads((ROOT / folder / "results.json").read_text())
        rows = {row["name"]: 100 * row["accuracy"] for row in results["rows"]}
        names = ("maj@4", "synthesizer/grpo", "synthesizer/grpo@T")
        assert shown[:3] == [f"{rows[name]:.1f}" for name in names]


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


def test_settings_that_never_differ_have_no_interval() -> None:
    one, same = setting("a", [0, 0, 0, 1]), setting("b", [0, 0, 0, 1])
    (line,) = [line for line in comparing.table([one, same], "a") if line.startswith("| b")]
    assert f"+0.0 (no difference in {len(one.problems)} problems)" in line


def test_other_problems_and_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="b: not the same problems in the same order as a"):
        comparing.table([setting("a", [0, 0, 0, 1]), setting("b", [0, 0, 0, 1], problems="abce")], "a")
    with pytest.raises(InputError, match="--against c: no such evaluation; expected one of a"):
        comparing.table([setting("a", [0, 0, 0, 1])], "c")


def test_what_is_no_evaluation_of_a_synthesizer_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for given, said in (
        ([str(tmp_path)], f"{tmp_path}: no evaluation below it"),
        (["data/results/gsm8k/votes-4"], "data/results/gsm8k/votes-4: no synthesizer that reads references"),
        (["data/results/gsm8k/evaluation-1.5b"], "nothing under tasks: 'synthesizer/base'; it was not kept"),
    ):
        assert a2r("compare", *given) == 2
        assert said in capsys.readouterr().err
