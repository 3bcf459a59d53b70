"""What the probe counts is right by hand, its selector finds what made the answers, and its words follow from
the figures.
"""

import itertools
import json
from math import comb
from pathlib import Path

import check_probe
import numpy as np
import pytest
from conftest import ROOT, a2r, bundle_with, files_of, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.data.probe import NO_ROLLOUT, Pattern, pattern_of, patterns, pools_of, votes
from a2r_train.errors import InputError
from a2r_train.evaluate.probe import words
from a2r_train.evaluate.probe.beside import probe_line
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.facts import Facts
from a2r_train.evaluate.probe.power import Spread, power_line, spread_against_vote
from a2r_train.evaluate.probe.predict import ERROR, ERROR_ALONE
from a2r_train.evaluate.probe.run import probe
from a2r_train.evaluate.probe.selector import LIFT, TRAINED_WEIGHT, Selector, fit
from a2r_train.evaluate.probe.signal import chance, mixtures
from a2r_train.evaluate.rows.row import expected_vote
from a2r_train.evaluate.statistics import interval, intervals
from a2r_train.records import Problem, Rollout


def rollouts_of(answers: list[list[str]], gold: str = "7") -> list[Rollout]:
    """One list a problem; the gold answer is right, "" is unparsable."""
    verdict = {gold: "correct", "": "unparsable"}
    return [
        Rollout(f"p{i}", n, f"{n}", answer, verdict.get(answer, "incorrect"), 20, 50 + n)
        for i, given in enumerate(answers)
        for n, answer in enumerate(given)
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["7", "8", "9", ""]), min_size=2, max_size=6))
def test_votes_and_patterns_are_those_of_all_subsets(answers: list[str]) -> None:
    """Over many equal problems the random orders come to the exact mean over all subsets."""
    pools = pools_of(rollouts_of([answers] * 40), {}, "exact")
    found = votes(pools, 0)
    names = {"7": "correct", "": "unparsable"}
    for k in range(1, len(answers) + 1):
        exact = []
        for subset in itertools.combinations(answers, k):
            verdicts = [names.get(a, "incorrect") for a in subset]
            exact.append(expected_vote(subset, verdicts, "exact"))
            assert pattern_of(subset, verdicts, "exact").vote == pytest.approx(exact[-1])
        assert np.mean(found[:, k - 1]) == pytest.approx(np.mean(exact), abs=0.04)
        shown, shares = patterns(pools, k, 0)
        assert shares.sum(axis=1) == pytest.approx(1.0)
        assert float(shares.mean(axis=0) @ [p.vote for p in shown]) == pytest.approx(np.mean(exact), abs=0.04)


def test_a_problem_with_fewer_rollouts_has_no_value_at_k() -> None:
    pools = pools_of(rollouts_of([["7", "8"], ["7", "8", "7"]]), {}, "exact")
    assert pools.group[0, 2] == NO_ROLLOUT
    assert np.isnan(votes(pools, 0)).tolist() == [[False, False, True], [False] * 3]
    assert np.isnan(patterns(pools, 3, 0)[1]).any(axis=1).tolist() == [True, False]


def test_patterns_say_who_agrees() -> None:
    shown = pattern_of(["7", "8", "8", ""], ["correct", "incorrect", "incorrect", "unparsable"], "exact")
    assert shown == Pattern(((2, False), (1, True)), 1)
    assert (shown.label, shown.n_correct, shown.vote, shown.unanimous) == ("2-1 (1 unread)", 1, 0.0, False)
    assert Pattern(((4, True),)).unanimous
    assert Pattern((), 4).vote == 0.0


def test_pass_at_k_is_without_bias_and_the_room_is_never_below_zero() -> None:
    answers = [["7"] * c + ["8", "9", "10", "11", "12", "13"][: 6 - c] for c in range(7)]
    facts = Facts(ProbeConfig("", "", k=3, draws=50), pools_of(rollouts_of(answers), {}, "exact"))
    for c, row in enumerate(facts.oracle):
        assert row.tolist() == pytest.approx([1 - comb(6 - c, k) / comb(6, k) for k in range(1, 7)])
    assert (facts.oracle - facts.vote > -1e-9).all()
    assert facts.vote[:, 0] == pytest.approx(facts.oracle[:, 0])
    kept = {name: float(part.sum()) for name, part in mixtures(facts).items()}
    assert kept["all"] == pytest.approx(1.0)
    assert kept["accuracy_band"] == pytest.approx(2 / 7)  # 1 and 2 of 6 are right
    assert 0 < kept["balanced"] < kept["hard_plus_easy"] < 1


def test_more_references_are_advised_over_the_same_problems_alone(tmp_path: Path) -> None:
    """Easy problems with twice the rollouts: pass@4 is 1 there, and pass@2 too."""
    hard = [["7", "8"]] * 4 + [["8", "9"]] * 16
    for easy, said in (["7"] * 4, ""), (["7", "8", "9", "10"], "Raise k: pass@4 is 50.0 points above pass@2"):
        path = write_rows(tmp_path / "rollouts.jsonl", [vars(r) for r in rollouts_of([easy] * 20 + hard)])
        found = probe(ProbeConfig(path, str(tmp_path / f"out {said}"), k=2, draws=50))
        assert found["by_k"][3]["over_k"] == pytest.approx(0.5 if said else 0.0)
        (line,) = [s for s in found["recommendation"]["reasons"] if s.startswith("Raise k")] or [""]
        assert line.startswith(said)
        assert bool(line) == bool(said)
    assert line.endswith("(of the 20 problems with as many rollouts).")


def test_a_selector_at_chance_is_pass_at_1_and_a_heavy_one_the_vote() -> None:
    shown = [Pattern(((2, False), (1, True), (1, False))), Pattern(((3, True), (1, False)))]
    assert Selector(1.0, 0.5).chances(shown) == pytest.approx([0.25, 0.75])
    assert Selector(60.0, 0.5).chances(shown) == pytest.approx([0.0, 1.0], abs=1e-6)
    assert Selector(1.0, 0.75, 0.1).chances([Pattern(((4, False),))]) == pytest.approx([0.1])


@pytest.mark.parametrize(("weight", "accuracy"), [(1.0, 0.5), (2.5, 0.75), (1.5, 0.35)])
def test_the_fit_finds_the_selector_that_answered(weight: float, accuracy: float) -> None:
    shown = [
        Pattern(groups)
        for groups in (
            ((1, True), (1, False), (1, False), (1, False)), ((2, False), (1, True), (1, False)),
            ((2, True), (2, False)), ((3, True), (1, False)), ((3, False), (1, True)),
        )
    ]  # fmt: skip
    made = Selector(weight, accuracy, 0.05)
    none = Pattern(((2, False), (2, False)))
    found = fit([*shown, none], [*made.chances(shown), 0.05], [500.0] * 6)
    assert (found.weight, found.new) == (weight, pytest.approx(0.05))
    assert found.accuracy == pytest.approx(accuracy, abs=0.02)
    assert found.trained().accuracy > found.accuracy


def test_groups_of_unlike_answers_have_signal_by_hand() -> None:
    pattern = Pattern(((1, True), (1, False)))
    assert chance(Selector(1.0, 0.5), pattern, 0.0, 4) == pytest.approx(1 - 2 / 16)
    assert chance(Selector(1.0, 0.5), pattern, 1 / 3, 2) == pytest.approx(1 - 2 / 3)  # uniform chances
    assert chance(Selector(1.0, 0.5), pattern, 1.0, 8) == 0.0
    assert chance(Selector(), Pattern(((4, True),)), 0.2, 8) == 0.0


def test_the_smallest_difference_is_told_in_four_of_five_simulations() -> None:
    """Problems of unlike difficulty, three bundles of each: the share of intervals that exclude 0."""
    random = np.random.default_rng(0)
    spread = Spread(between=0.04, within=0.15)
    true = spread.smallest(200, 3)
    told = 0
    for _ in range(400):
        problem = true + 0.2 * random.standard_normal(200)
        mean = problem + np.sqrt(0.15 / 3) * random.standard_normal(200)
        told += abs(mean.mean()) > 1.96 * mean.std(ddof=1) / np.sqrt(200)
    assert 0.74 < told / 400 < 0.86
    assert spread.problems(true, 3) == pytest.approx(200, abs=1)
    assert spread.smallest(200, 1) > spread.smallest(200, 3) > spread.smallest(800, 3)


def test_bundles_of_one_problem_alike_bring_nothing() -> None:
    shown = [Pattern(((1, True), (1, False))), Pattern(((2, False),)), Pattern(((2, True),))]
    of_problems = spread_against_vote(
        shown, np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), Selector(9.0, 0.9, 0.0)
    )
    assert of_problems.within == pytest.approx(0.0)


def test_intervals_of_columns_are_those_of_each_alone() -> None:
    scores = np.random.default_rng(0).random((300, 2))
    scores[:100, 1] = np.nan
    found = intervals(scores, draws=2000)
    for column in range(2):
        assert found[:, column] == pytest.approx(interval(scores[:, column], draws=2000), abs=0.004)
    assert np.isnan(intervals(np.full((3, 1), np.nan), draws=10)).all()


@pytest.mark.parametrize(("gain", "word"), [(0.1, "train"), (0.01, "unsure"), (-0.1, "vote")])
def test_the_word_follows_from_gain_and_error(gain: float, word: str) -> None:
    assert words.word_of(gain, 0.03) == word


def test_the_errors_that_the_probe_states_are_those_of_its_kept_rows() -> None:
    """And docs/probe.md has the table that the script makes of them."""
    rows = [json.loads(line) for line in (ROOT / check_probe.ROWS).read_text().splitlines()]
    page = (ROOT / "docs/probe.md").read_text()
    inside = [one for one in check_probe.check(rows) if one.row["explorer"] in check_probe.LESSONS]
    assert check_probe.root_mean_square(inside) == pytest.approx(ERROR, abs=0.0005)
    lines = check_probe.report(rows)
    assert f"untrained answers: {100 * ERROR_ALONE:.1f} points" in "\n".join(lines)
    assert all(line in page for line in lines if line.startswith("|"))
    weight, lift = check_probe.lessons([one.row for one in inside])
    assert (weight, lift) == pytest.approx((TRAINED_WEIGHT, LIFT), abs=0.13)


def test_lines_of_an_evaluation_name_room_and_power() -> None:
    bundles = [
        bundle_with(Problem(f"p{i}", "?", "7"), ["7", "8", "9", "10"] if i % 2 else ["7"] * 4)
        for i in range(60)
    ]
    assert "60 problems x 1 bundle tell" in power_line(bundles)
    assert "power 80 %" in power_line(bundles)
    results = {"rows": [{"name": "synthesizer/grpo", "accuracy": 0.7}]}
    assert "a headroom of 37.5 points" in (said := probe_line(bundles, [], results))
    assert "measured 70.0 %" in said
    assert "60 problems add " in said
    assert probe_line(bundles[:49], [], results) == ""  # of so few chance is above all that could be said


def test_rollouts_alone_are_probed(tmp_path: Path, rollouts: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: every part of probe.json, a page and the words; again, the same bytes."""
    out = tmp_path / "out"
    assert a2r("probe", "--rollouts", rollouts, "--output_dir", str(out), "--draws", "100") == 0
    found = json.loads((out / "probe.json").read_text())
    assert {
        "by_k", "by_correct", "by_agreement", "shares", "gains", "tokens", "predicted", "signal", "power",
        "recommendation",
    } <= found.keys()  # fmt: skip
    assert len(found["by_k"]) == 6
    assert found["by_k"][0]["pass"]["value"] == pytest.approx(np.mean([0, 1, 2, 3, 4, 5, 6]) / 6, abs=1e-6)
    assert sum(row["share"]["value"] for row in found["by_correct"]) == pytest.approx(1.0, abs=1e-4)
    assert found["gains"]["perfect"]["value"] >= found["gains"]["selector"]["value"]
    shown = capsys.readouterr().out
    assert "Room" in shown
    assert found["setup"]["verdicts"] == "those of the file"
    page = (out / "report.html").read_text()
    assert "<title>Will training pay?</title>" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    before = files_of(out)
    assert a2r("probe", "--rollouts", rollouts, "--output_dir", str(out), "--draws", "100") == 0
    assert files_of(out) == before


def test_rollouts_of_others_are_judged(tmp_path: Path) -> None:
    rows = [
        {"problem": f"What is {i}?", "answer": str(i), "text": rf"\boxed{{{i if n % 2 else n}}}"}
        for i in range(10, 16)
        for n in range(4)
    ]
    path = write_rows(tmp_path / "others.jsonl", rows)
    found = probe(ProbeConfig(path, str(tmp_path / "out"), draws=50))
    assert found["setup"]["verdicts"] == "judged here"
    assert found["by_k"][0]["pass"]["value"] == pytest.approx(0.5)
    assert found["shares"]["none_right"]["value"] == 0
    assert found["tokens"]["equal"] is None  # no counts came along


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ([["8", "9", "10", "11"]] * 20, "weak"),
        ([["7"] * 4] * 20, "vote"),
        ([["", "", "", "7"]] * 20, "format"),
    ],
)
def test_the_recommendation_names_what_is_the_matter(
    tmp_path: Path, answers: list[list[str]], what: str
) -> None:
    rows = [vars(rollout) for rollout in rollouts_of(answers)]
    path = write_rows(tmp_path / "rollouts.jsonl", rows)
    found = probe(ProbeConfig(path, str(tmp_path / "out"), draws=50))
    assert found["recommendation"]["what"] == what
    assert words.headline(found).startswith(words.HEADS[what])


def test_verdicts_of_a_task_are_its_verifiers(tmp_path: Path) -> None:
    """Without problems the votes are counted by the verifier that `task.yaml` beside the rollouts names."""
    rows = [vars(r) for r in rollouts_of([["A", "a", "B", "B"]], gold="A")]
    path = write_rows(tmp_path / "rollouts.jsonl", rows)
    (tmp_path / "task.yaml").write_text("verifier: exact\n")
    found = probe(ProbeConfig(path, str(tmp_path / "out"), draws=50))
    assert found["by_agreement"][0]["pattern"] == "2-2"


def test_answers_without_a_vote_are_refused() -> None:
    with pytest.raises(InputError, match="the probe needs votes, but answers of python_tests have none"):
        pools_of(rollouts_of([["7", "8"]]), {}, "python_tests")
