"""Rows by hand, diagnostics, and reports that repeat, escape and say what the numbers say."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import bundle_with
from rich.console import Console

from a2r_train.data.builder import bundle_of, others, unfound
from a2r_train.errors import InputError
from a2r_train.evaluate import diagnostics
from a2r_train.evaluate.report import browser
from a2r_train.evaluate.report import write as report
from a2r_train.evaluate.report.tables import sections
from a2r_train.evaluate.report.terminal import table
from a2r_train.evaluate.rows import row as rows
from a2r_train.evaluate.rows.row import Row
from a2r_train.records import Bundle, Problem, Reference, Rollout, Synthesis

EVIL = "<script>alert(1)</script> & \"'"


def bundle(name: str, answers: list[str], gold: str, tokens: int = 10, problem_id: str = "") -> Bundle:
    problem = Problem(problem_id or name, f"What is {gold}? {EVIL}", gold, "exact")
    texts = [f"I say {a} {EVIL}" for a in answers]
    return bundle_with(problem, answers, name, texts=texts, tokens=[tokens] * len(answers))


def synthesis(
    bundle: Bundle, answer: str, sample: int = 0, prompt: int = 20, completion: int = 5
) -> Synthesis:
    verdict = "correct" if answer == bundle.answer else "incorrect"
    return Synthesis(
        bundle.id, sample, f"So {answer} {EVIL}", answer, verdict, prompt, completion, "stop", "m", 0
    )


def rollout(problem_id: str, sample: int, answer: str, gold: str, tokens: int = 10) -> Rollout:
    verdict = "correct" if answer == gold else "incorrect"
    return Rollout(problem_id, sample, f"text {sample}", answer, verdict, 7, tokens)


@pytest.fixture
def bundles() -> list[Bundle]:
    return [
        bundle("right", ["5", "5", "5", "2"], "5"),
        bundle("tie", ["5", "5", "2", "2"], "5"),
        bundle("wrong", ["2", "2", "2", "5"], "5"),
        bundle("none", ["2", "3", "4", "1"], "5"),
    ]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["5", "5", "2"], 1.0),
        (["5", "2", "2"], 0.0),
        (["5", "2"], 0.5),
        (["5", "2", "3"], 1 / 3),
        (["5", "", "", ""], 1.0),
        (["", "2", "", "5", "5"], 1.0),
        (["", ""], 0.0),
    ],
)
def test_expected_vote_of_ties_and_unparsable(answers: list[str], expected: float) -> None:
    verdicts = ["correct" if a == "5" else "incorrect" for a in answers]
    assert rows.expected_vote(answers, verdicts, "exact") == pytest.approx(expected)


def test_equivalent_answers_vote_as_one() -> None:
    answers, verdicts = (
        ["1/2", "0.5", "3", "3", "\\frac{1}{2}"],
        ["correct", "correct", "incorrect", "incorrect", "correct"],
    )
    assert rows.expected_vote(answers, verdicts, "math") == 1.0


def test_reference_rows_by_hand(bundles: list[Bundle]) -> None:
    first, oracle, vote = rows.reference_rows(bundles, rows.bundle_votes(bundles))
    assert [first.name, oracle.name, vote.name] == ["pass@1", "pass@4", "maj@4"]
    assert first.scores == pytest.approx([0.75, 0.5, 0.25, 0.0])
    assert oracle.scores == pytest.approx([1, 1, 1, 0])
    assert vote.scores == pytest.approx([1, 0.5, 0, 0])
    assert (first.tokens, oracle.tokens, vote.tokens) == (10, 40, 40)


def test_bundles_and_samples_of_a_problem_are_averaged() -> None:
    pair = [bundle("a", ["5", "5"], "5", problem_id="p"), bundle("b", ["2", "2"], "5", problem_id="p")]
    given = [synthesis(pair[0], "5"), synthesis(pair[0], "2", 1), synthesis(pair[1], "2")]
    row = rows.synthesis_row("synthesizer/base", pair, given)
    assert row.scores == pytest.approx([0.25])
    assert row.tokens == 2 * 10 + 20 + 5
    missing = rows.synthesis_row("x", [*pair, bundle("c", ["1", "2"], "1")], given)
    assert missing.scores[0] == pytest.approx(0.25)
    assert np.isnan(missing.scores[1])


def test_equal_budgets_by_hand(bundles: list[Bundle]) -> None:
    """40 reference tokens + 20 + 5 = 65, at 12 a rollout 5.4: 6; with a synthesizer twice the size 90: 7.5:
    8.
    """
    rollouts = [rollout(b.id, i, "5", "5", tokens) for b in bundles for i, tokens in enumerate((10, 14))]
    given = [synthesis(b, "5") for b in bundles]
    assert rows.equal_budget(bundles, rollouts, given) == 6
    assert rows.equal_budget(bundles, rollouts, given, token_cost=2.0) == 8
    exact = [replace(r, completion_tokens=13) for r in rollouts]
    assert rows.equal_budget(bundles, exact, given) == 5
    with pytest.raises(InputError, match="no token counts"):
        rows.equal_budget(bundles, [replace(r, completion_tokens=0) for r in rollouts], given)


def test_majority_over_the_references_and_further_rollouts(bundles: list[Bundle]) -> None:
    tie = bundles[1]
    rollouts = [
        rollout("tie", i, answer, "5") for i, answer in enumerate(["2", "5", "5", "2", "5", "2", "2"])
    ]
    assert rows.majority_row("m", [tie], rollouts, 4).scores == pytest.approx([0.5])
    assert rows.majority_row("m", [tie], rollouts, 5).scores == pytest.approx([1.0])
    full = rows.majority_row("m", [tie], rollouts, 7)
    assert full.scores == pytest.approx([0.0])
    assert full.tokens == 70
    assert full.note == "m=7"
    short = rows.majority_row("m", [tie], rollouts, 9)
    assert short.note == "m=9; fewer rollouts exist for 1 of 1 bundles (7.0 vote on average)"
    with pytest.raises(InputError, match="'tie' has no verdict"):
        rows.majority_row("m", [tie], [*rollouts, replace(rollouts[0], sample=9, verdict="unverified")], 9)


def test_a_reference_is_its_own_rollout_whatever_its_tokens() -> None:
    """By its text; a reference whose text was cut since, by its answer and tokens."""
    same = [rollout("p", i, answer, "5") for i, answer in enumerate(["5", "5", "2", "5"])]
    taken = [Reference("text 1", "5", "correct", 0), Reference("cut", "2", "incorrect", 10)]
    made = bundle_of(Problem("p", "?", "5"), taken, "p")
    assert [one.sample for one in others(made, same)] == [0, 3]
    assert unfound(made, same) == []
    assert [one.text for one in unfound(made, same[:2])] == ["cut"]
    counted = [replace(one, completion_tokens=10 + one.sample) for one in same]
    assert [one.sample for one in others(made, counted)] == [0, 2, 3]
    last = replace(made, references=[Reference("text 3", "5", "correct", 10)])
    assert [one.sample for one in others(last, same)] == [1, 2, 0]  # the answers as if the first were taken
    twice = [replace(same[1], sample=4, completion_tokens=0), *same[1:]]  # the same text again
    assert [one.sample for one in others(made, twice)] == [1, 3]


def test_diagnostics_by_hand(bundles: list[Bundle]) -> None:
    votes = rows.bundle_votes(bundles)
    given = [synthesis(b, a) for b, a in zip(bundles, ["2", "5", "5", "5"], strict=True)]
    given.append(synthesis(bundles[3], "2", sample=1))
    found = diagnostics.diagnose(bundles, votes, {"synthesizer/base": given})
    flips = found["flips"]["synthesizer/base"]
    assert flips == {"wrong_to_right": 2, "right_to_wrong": 1, "right_to_right": 1, "wrong_to_wrong": 1}
    assert found["new_correct"]["synthesizer/base"] == {"n": 1, "accuracy": 0.5}
    assert found["copy_rate"]["synthesizer/base"] == pytest.approx(
        2 / 5
    )  # "tie" copies its first group, "none" once
    assert found["tokens_by_stage"]["synthesizer/base"] == {
        "references": 40,
        "synthesizer_prompt": 20,
        "synthesis": 5,
    }
    assert found["by_correct"]["maj@4"]["2"] == {"n": 1, "accuracy": 0.5}
    assert found["by_correct"]["synthesizer/base"]["3"] == {"n": 1, "accuracy": 0.0}
    assert found["by_majority"]["maj@4"] == {
        "1": {"n": 1, "accuracy": 0.0},
        "2": {"n": 1, "accuracy": 0.5},
        "3": {"n": 2, "accuracy": 0.5},
    }
    assert found["by_majority"]["synthesizer/base"]["3"] == {"n": 2, "accuracy": 0.5}
    assert "by_source" not in found
    named = [replace(b, source=source) for b, source in zip(bundles, ["x", "y", "x", "y"], strict=True)]
    cells = diagnostics.diagnose(named, votes, {"synthesizer/base": given})["by_source"]["synthesizer/base"]
    assert cells == {"x": {"n": 2, "accuracy": 0.5}, "y": {"n": 2, "accuracy": 0.75}}
    templates = [replace(b, source=f"template {i}") for i, b in enumerate(bundles * diagnostics.MOST_SOURCES)]
    assert "by_source" not in diagnostics.diagnose(templates, [*votes] * diagnostics.MOST_SOURCES, {})


def test_default_pairs_match_greedy_with_greedy_and_sampled_with_sampled() -> None:
    votes = ["maj@4", "maj@equal_tokens", "maj@equal_cost"]
    rivals = [f"synthesizer/{name}" for name in ("base", "sft", "alone", "no_references")]
    names = [
        "pass@1",
        "pass@4",
        *votes,
        "explorer/greedy",
        *rivals,
        "synthesizer/sft+grpo",
        "synthesizer/sft+grpo@T",
    ]
    names += ["synthesizer/base@T", "synthesizer/sft@T", "synthesizer/no_references@T"]
    pairs = report.default_pairs(names)
    greedy, sampled = "synthesizer/sft+grpo", "synthesizer/sft+grpo@T"
    assert {b for a, b in pairs if a == greedy} == {*votes, *rivals, "explorer/greedy"}
    alone = "synthesizer/alone"  # it has no sampled row here
    assert {b for a, b in pairs if a == sampled} == {
        *votes,
        "pass@1",  # the explorer, sampled
        alone,
        *(f"{name}@T" for name in rivals if name != alone),
    }
    assert len(pairs) == 16
    assert report.default_pairs(["maj@4", "synthesizer/base"]) == []
    budgets = ["pass@1", "synthesizer/base", "pass@1/2x", "synthesizer/base/2x"]
    longer = "synthesizer/base/2x"
    assert report.default_pairs(budgets) == [(longer, "synthesizer/base"), (longer, "pass@1/2x")]
    trained = [*budgets, "synthesizer/sft", "synthesizer/sft/2x"]
    assert {b for a, b in report.default_pairs(trained) if a == "synthesizer/sft/2x"} == {
        "synthesizer/sft",
        "pass@1/2x",
    }
    assert longer not in {a for a, _ in report.default_pairs(trained)}  # it is not the trained one
    judging = [
        "synthesizer/base",
        "synthesizer/sft",
        *(f"synthesizer/{n}/verdict-vote" for n in ("base", "sft")),
    ]
    assert report.default_pairs(judging) == [("synthesizer/sft", "synthesizer/base")]  # votes have no budget
    methods = ["best-of-4", "genselect", "monolith", "monolith@T", "adaptive"]
    found = report.default_pairs(["synthesizer/sft", "synthesizer/sft@T", *methods])
    assert ("synthesizer/sft@T", "monolith@T") in found
    assert {b for a, b in found if a == "synthesizer/sft"} == set(methods) - {"monolith@T"}


def test_problems_without_rollouts_keep_what_their_references_say(bundles: list[Bundle]) -> None:
    given = [rollout("right", i, answer, "5") for i, answer in enumerate(["5", "2", "2", "2", "2"])]
    one, oracle, _ = rows.reference_rows(bundles, rows.bundle_votes(bundles), given)
    assert one.scores == pytest.approx([0.2, 0.5, 0.25, 0.0])
    assert oracle.scores == pytest.approx([0.8, 1, 1, 0])


def test_the_note_counts_only_the_rollouts_of_these_problems(bundles: list[Bundle]) -> None:
    given = [rollout("right", i, answer, "5") for i, answer in enumerate(["5", "2", "2", "2", "2"])]
    others = [rollout(f"train {n}", i, "5", "5") for n in range(9) for i in range(64)]
    made, alone = (
        rows.reference_rows(bundles, rows.bundle_votes(bundles), r) for r in ([*given, *others], others)
    )
    assert made[0].note == "unbiased, over 5 rollouts a problem"
    assert alone[0].note == ""  # all from the references


def results_of(bundles: list[Bundle], gain: float = 0.3) -> report.Results:
    random = np.random.default_rng(0)
    base = random.random(200) * 0.5
    better = base + random.normal(gain, 0.05, 200)
    table = [
        Row("maj@4", base, 40.0, "m=4 | [bold]"),
        Row("synthesizer/base", base, 65.0),
        Row("synthesizer/sft", better, 65.0),
        Row("synthesizer/sft+grpo", better + random.normal(0, 0.05, 200), float("nan")),
    ]
    given = {
        "synthesizer/base": [synthesis(b, "5") for b in bundles],
        EVIL: [synthesis(b, EVIL) for b in bundles],
    }
    diagnosed = diagnostics.diagnose(bundles, rows.bundle_votes(bundles), given)
    setup = {"explorer": EVIL, "temperature": 1.0}
    return report.build_results(table, setup=setup, diagnostics=diagnosed, draws=2000)


def test_results_json_has_the_contract_and_the_same_bytes_twice(
    bundles: list[Bundle], tmp_path: Path
) -> None:
    for run in ("a", "b"):
        report.write_results(tmp_path / run, results_of(bundles))
    text = (tmp_path / "a" / "results.json").read_bytes()
    assert text == (tmp_path / "b" / "results.json").read_bytes()
    results = json.loads(text)
    assert {"name", "accuracy", "low", "high", "n", "tokens"} <= set(results["rows"][0])
    assert {"a", "b", "difference", "low", "high", "p_value", "p_holm", "low_holm", "high_holm"} <= set(
        results["paired"][0]
    )
    assert results["rows"][3]["tokens"] is None
    assert max(len(number) for number in re.findall(rb"\.(\d+)", text)) <= 6
    assert results == results_of(bundles)


def test_the_paired_table_says_which_intervals_exclude_zero(bundles: list[Bundle]) -> None:
    results = results_of(bundles)
    section = next(section for section in sections(results) if section.title == "Paired differences")
    said = [dict(zip(section.header, row, strict=True)) for row in section.rows]
    assert {row["b"]: row["excludes 0"] for row in said} == {
        "synthesizer/base": "yes",
        "maj@4": "yes",
        "synthesizer/sft": "no",
    }
    for pair, row in zip(results["paired"], said, strict=True):
        assert row["corrected interval"] == f"{100 * pair['low_holm']:+.1f} to {100 * pair['high_holm']:+.1f}"
        assert (row["excludes 0"] == "yes") == (pair["p_holm"] <= 0.05)
        assert pair["low_holm"] <= pair["low"] < pair["high"] <= pair["high_holm"]


def test_nothing_is_claimed_that_the_corrected_p_denies() -> None:
    """4 problems won and none lost of 30: the interval excludes 0, and p is just above 0.05."""
    won = np.array([1.0] * 4 + [0.0] * 26)
    results = report.build_results([Row("maj@4", 0 * won, 40.0), Row("synthesizer/sft", won, 65.0)])
    (pair,) = results["paired"]
    assert pair["low_holm"] > 0
    assert pair["p_holm"] > 0.05
    assert report.sentences(results)[0].startswith(
        "synthesizer/sft cannot be told apart from maj@4: +13.3 points"
    )
    section = next(section for section in sections(results) if section.title == "Paired differences")
    assert section.rows[0][-2] == "by the interval alone"


def test_sentences_say_what_the_intervals_say(bundles: list[Bundle]) -> None:
    said = report.sentences(results_of(bundles))
    assert said[0].startswith("synthesizer/sft+grpo is above synthesizer/base: +29.6 points")
    assert said[1].startswith(
        "GRPO did not measurably add to SFT (synthesizer/sft+grpo against synthesizer/sft)"
    )
    assert said[2].startswith("synthesizer/sft+grpo is above maj@4")
    assert report.sentences(results_of(bundles, gain=-0.3))[0].startswith(
        "synthesizer/sft+grpo is below synthesizer/base: -30.4 points"
    )


@pytest.mark.parametrize(
    ("names", "said"), [(["sft"], True), (["sft", "sft+grpo"], False), (["grpo"], False), ([], False)]
)
def test_what_grpo_adds_is_a_question_where_there_is_sft(names: list[str], said: bool) -> None:
    table = [Row(name, np.ones(3), 1.0) for name in ("pass@1", *(f"synthesizer/{name}" for name in names))]
    found = report.sentences(report.build_results(table, draws=50))
    assert ("Whether GRPO adds to SFT is not known: there is no synthesizer/sft+grpo row." in found) == said


def test_reports_escape_model_text_repeat_and_need_no_network(bundles: list[Bundle], tmp_path: Path) -> None:
    results = results_of(bundles)
    given = {name: [synthesis(b, EVIL) for b in bundles] for name in ("synthesizer/base", EVIL)}
    shown = browser.browser(bundles, rows.bundle_votes(bundles), given)
    for run in ("a", "b"):
        report.write_report(tmp_path / run, results, shown)
    page = (tmp_path / "a" / "report.html").read_text()
    assert page == (tmp_path / "b" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script>") == page.count("</script>") == 1
    assert not re.search(r"(src|href)=\"(?!#|data:)", page.replace("xlink:href", "href"))
    assert "url(http" not in page
    assert page.count("<svg") == 2 * 4  # each for wide windows and for narrow ones
    assert page.count("<article>") == 4
    assert "prefers-color-scheme: dark" in page
    text = (tmp_path / "a" / "report.md").read_text()
    assert "<script>" not in text
    assert "| synthesizer/sft | " in text
    assert "m=4 \\| [bold]" in text


def test_browser_draws_from_every_flip_kind_and_clips_long_texts(bundles: list[Bundle]) -> None:
    answers = ["2", "5", "5", "1"]
    given = {"s": [synthesis(b, a) for b, a in zip(bundles, answers, strict=True)]}
    shown = browser.browser(bundles, rows.bundle_votes(bundles), given)
    kinds = ["wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"]
    assert [one.syntheses[0].flip for one in shown] == kinds
    assert len(browser.browser(bundles * 3, rows.bundle_votes(bundles * 3), given, limit=2)) == 2
    long = replace(bundles[0], references=[Reference("x" * 5000 + "end")] * 4)
    clipped = browser.browser([long], np.ones(1), {})[0].references[0].text
    assert clipped.startswith("[1003 characters left out]")
    assert clipped.endswith("end")


def test_terminal_table_shows_every_row_in_80_columns(bundles: list[Bundle]) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(results_of(bundles)))
    text = console.export_text()
    for name in ("maj@4", "synthesizer/base", "synthesizer/sft+grpo", "[bold]", "not told apart"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 80
