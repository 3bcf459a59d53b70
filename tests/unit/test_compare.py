"""`a2r compare`: several evaluations side by side."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import a2r, bundle_with

from a2r_train.errors import InputError
from a2r_train.evaluate import comparison as comparing
from a2r_train.evaluate.answers import MANIFEST
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.records import CORRECT, INCORRECT, Problem, Synthesis, write

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
        [setting("worse", [0, 0, 0, 1], [0, 0, 1, 1]), setting("best", [1, 0, 1, 1], [0.5, 0, 1, 1])], "worse"
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
    assert best[5].startswith("+31.2 (")
    assert worse == ["worse", "50.0", "25.0", "50.0", "37.5", "", "0.0", "50.0", "100.0"]


def test_greedy_answers_are_not_compared_with_sampled_ones() -> None:
    """The same greedy answers; one setting has worse sampled ones, the other has none."""
    both, one = setting("both", [1, 0, 1, 1], [0, 0, 0, 0]), setting("one", [1, 0, 1, 1])
    head, _, *lines, empty, note = comparing.table([both, one], "one")
    assert cells(head)[5:7] == ["greedy against one", "0 right"]
    shown = {line[0]: line[1:] for line in map(cells, lines)}
    assert shown["both"][:5] == ["50.0", "75.0", "0.0", "", "+0.0 (no difference in 4 problems)"]
    assert shown["one"][:5] == ["50.0", "75.0", "", "", ""]
    assert shown["both"][5:] == shown["one"][5:] == ["50.0", "100.0", "100.0"]
    assert not empty
    assert note == "Only greedy answers are compared, because there are no sampled ones in one."


def test_right_references_are_those_of_each_bundle() -> None:
    """Two bundles of a problem: their mean is its score, but each counts where its own references put it."""
    n_correct, vote, greedy = np.array([[0.0, 2, 2], [0, 1, 1], [0, 1, 0]])
    one = comparing.Setting("a", ["p", "p", "q"], n_correct, vote, greedy, None)
    line = cells(comparing.table([one], "a")[2])
    assert line == ["a", "75.0", "25.0", "", "", "", "0.0", "", "50.0"]


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


def test_what_has_no_vote_has_no_number_of_it() -> None:
    silent = replace(setting("a", [1, 1, 1, 1]), vote=np.full(4, np.nan))
    assert [cells(line)[1] for line in comparing.table([silent], "a")[2:]] == ["-"]


def test_where_the_corrected_p_denies_what_the_interval_shows_it_is_beside_it() -> None:
    """Five problems, of which four are better: the interval excludes 0."""
    worse, better = ([0.0] * 5, [1.0, 1.0, 1.0, 1.0, 0.0])
    few = [
        comparing.Setting(name, list("abcde"), np.zeros(5), np.zeros(5), np.array(values), None)
        for name, values in (("worse", worse), ("better", better))
    ]
    best = cells(comparing.table(few, "worse")[2])
    assert re.fullmatch(r"\+80\.0 \(\+40\.0 to \+100\.0\), p 0\.06\d", best[5])


def test_settings_that_never_differ_have_no_interval() -> None:
    one, same = setting("a", [0, 0, 0, 1]), setting("b", [0, 0, 0, 1])
    (line,) = [line for line in comparing.table([one, same], "a") if line.startswith("| b")]
    assert f"+0.0 (no difference in {len(one.problems)} problems)" in line


def evaluation(folder: Path, right: list[bool], given: str, *, per_problem: int = 1, first: int = 0) -> Path:
    """A kept evaluation: that many problems named by their numbers, and whether each bundle is answered
    rightly. Its first `first` bundles were evaluated, or all.
    """
    bundles = [
        replace(
            bundle_with(
                Problem(str(i // per_problem), f"{given} {i // per_problem}", "5"), ["5"] * (i % 3 + 1)
            ),
            id=f"{i // per_problem}/{i % per_problem}",
        )
        for i in range(len(right))
    ]
    answered = bundles[: first or None]
    made = []
    for bundle, is_right in zip(answered, right, strict=False):
        answer, verdict = ("5", CORRECT) if is_right else ("6", INCORRECT)
        made.append(Synthesis(bundle.id, 0, rf"\boxed{{{answer}}}", answer, verdict, 9, 9, "stop", "m", 0))
    config = EvaluateConfig(
        str(folder / "bundles.jsonl"), str(folder), base="m", temperature=0, max_bundles=first
    )
    write(bundles, folder / "bundles.jsonl")
    write(made, folder / "made.jsonl")
    manifest = {"tasks": {"synthesizer/base": ["made.jsonl"]}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / "results.json").write_text(json.dumps({"setup": {"config": asdict(config)}}))
    return folder


def test_an_evaluation_of_the_first_bundles_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of six bundles, two of each problem."""
    right = [False, True, True, True, False, False]
    folder = evaluation(tmp_path / "a", right, "what?", per_problem=2, first=4)
    assert a2r("compare", str(folder)) == 0
    line = cells(capsys.readouterr().out.splitlines()[2])
    assert line[2] == "75.0"
    assert line[6:] == ["", "50.0", "100.0", "100.0"]  # bundles with 1, 2, 3 and again 1 right references


def test_other_problems_with_the_same_ids_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (
        evaluation(tmp_path / name, [True, False], given) for name, given in (("a", "what?"), ("b", "why?"))
    )
    assert a2r("compare", str(one), str(other)) == 2
    says = f"{other}: not the same problems as {one} (problems with the same id have other texts)"
    assert says in capsys.readouterr().err


def test_an_evaluation_is_no_rival_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would widen the corrected intervals of the others."""
    one, other = (evaluation(tmp_path / name, [True, False], "what?") for name in ("a", "b"))
    assert a2r("compare", str(one), str(other), f"{other}/../a", str(tmp_path / "b")) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert sorted(cells(line)[0] for line in lines) == [str(one), str(other)]


@pytest.mark.parametrize("what", ["same", "references", "no vote there"])
def test_bundles_that_were_made_again_are_told(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are read from the evaluation, the references from where its recipe says."""
    folder = evaluation(tmp_path / "a", [True, False], "what?")
    results = json.loads((folder / "results.json").read_text())
    vote = [{"name": "pass@1", "accuracy": 0.3}, {"name": "maj@k", "accuracy": 1.0}]
    results["rows"] = vote[: 1 if what == "no vote there" else 2]
    (folder / "results.json").write_text(json.dumps(results))
    if what == "references":
        problems = [Problem(str(i), f"what? {i}", "5") for i in range(2)]
        write([bundle_with(p, ["57"[i]], f"{i}/0") for i, p in enumerate(problems)], folder / "bundles.jsonl")
    assert a2r("compare", str(folder)) == 0
    out = capsys.readouterr().out
    says = f"The vote of {folder} is 100.0 in its own table: since then its bundles were made again"
    assert (says in out) == (what == "references")


def test_kept_bundles_without_texts_are_paired_by_their_golds() -> None:
    kept, whole, other = (
        replace(setting("abc"[i], [0, 0, 0, 1]), texts=text) for i, text in enumerate(["", "x", "y"])
    )
    assert not kept.differs_from(whole)
    assert not whole.differs_from(kept)
    assert whole.differs_from(other)


def test_other_problems_and_unknown_names_are_refused() -> None:
    says = (
        "b: not the same problems as a (3 problems with the same id and gold are in both, 1 only here, 1 only"
    )
    with pytest.raises(InputError, match=re.escape(says)):
        comparing.table([setting("a", [0, 0, 0, 1]), setting("b", [0, 0, 0, 1], problems="abce")], "a")
    with pytest.raises(InputError, match="--against c: no such evaluation; expected one of a"):
        comparing.table([setting("a", [0, 0, 0, 1])], "c")


def test_problems_in_another_order_are_paired() -> None:
    """Two bundles of problem b, which stand together in one evaluation and apart in the other."""
    base = comparing.Setting(
        "a", list("abbc"), *np.array([[0.0, 1, 2, 0]] * 2), np.array([1.0, 0, 1, 0]), None
    )
    order = [3, 1, 0, 2]
    columns = [base.n_correct[order], base.vote[order], base.greedy[order]]
    moved = comparing.Setting("b", [base.problems[i] for i in order], *columns, columns[-1])
    assert moved.in_order_of(base).greedy.tolist() == base.greedy.tolist()
    line = cells(comparing.table([base, moved], "a")[-3])
    assert line[5] == "+0.0 (no difference in 3 problems)"


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
