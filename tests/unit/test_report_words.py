"""What the report says first, in which family its comparisons are corrected, and what it warns of."""

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from a2r_train.evaluate.diagnostics import by_explorer, unparsable_texts
from a2r_train.evaluate.report import pairs, plots, words
from a2r_train.evaluate.report.tables import sections
from a2r_train.evaluate.report.terminal import table
from a2r_train.evaluate.report.write import build_results, markdown
from a2r_train.evaluate.rows.row import Row, bundle_votes, majority_row, reference_rows
from a2r_train.records import Bundle, Reference, Rollout

CONTROL = "synthesizer/no_references"
LONG = f"{CONTROL}@T"


def row(name: str, accuracy: float, n: int = 400, **values: Any) -> Row:
    right = np.zeros(n)
    right[: round(accuracy * n)] = 1.0
    return Row(name, right, 100.0, **values)


def results(**accuracies: float) -> dict[str, Any]:
    rows = [row(name.replace("__", "+").replace("_at_", "@"), value) for name, value in accuracies.items()]
    return build_results(rows, draws=500)


def said(table_of: dict[str, float]) -> str:
    return words.headline(build_results([row(name, value) for name, value in table_of.items()], draws=500))


BASE = {"synthesizer/base": 0.4}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            {**BASE, "maj@4": 0.5, CONTROL: 0.5, "synthesizer/sft": 0.7},
            "Training paid: synthesizer/sft is right in 70.0 % of 400 problems, 30.0 points above the "
            "untrained one (40.0 %), and above all 2 other rivals.",
        ),
        (
            {**BASE, "maj@4": 0.5, "synthesizer/sft": 0.7},
            "Training beats every rival, but without the control (synthesizer/no_references) it is not known "
            "whether it paid: synthesizer/sft is right in 70.0 % of 400 problems, 30.0 points above the "
            "untrained one (40.0 %), and above maj@4.",
        ),
        (
            {**BASE, "synthesizer/alone": 0.5, "synthesizer/sft": 0.7},
            "Training beats every rival, but without a vote and the control (synthesizer/no_references) it "
            "is not known whether it paid: synthesizer/sft is right in 70.0 % of 400 problems, 30.0 points "
            "above the untrained one (40.0 %), and above synthesizer/alone.",
        ),
        (
            {**BASE, "maj@4": 0.7, "maj@equal_tokens": 0.9, "explorer/greedy": 0.2, "synthesizer/grpo": 0.7},
            "Training beats the untrained model, but not every rival: synthesizer/grpo is right in 70.0 % "
            "of 400 problems, 30.0 points above the untrained one (40.0 %). It is above 1 of 3 other rivals, "
            "cannot be told apart from maj@4, and is below maj@equal_tokens.",
        ),
        (
            {**BASE, "synthesizer/sft": 0.7},
            "Training beats the untrained model, and nothing else was compared: synthesizer/sft is right in "
            "70.0 % of 400 problems, 30.0 points above the untrained one (40.0 %).",
        ),
        (
            {**BASE, "synthesizer/sft": 0.4},
            "No significant gain from training: synthesizer/sft is right in 40.0 % of 400 problems, 0.0 "
            "points above the untrained one (40.0 %).",
        ),
        (
            {**BASE, "synthesizer/sft": 0.2},
            "Training did harm: synthesizer/sft is right in 20.0 % of 400 problems, 20.0 points below the "
            "untrained one (40.0 %).",
        ),
        ({**BASE, "maj@4": 0.5}, "Whether training pays is not known: no trained synthesizer was evaluated."),
        (
            {"synthesizer/sft": 0.5},
            "Whether training paid is not known, as there is no synthesizer/base row: synthesizer/sft is "
            "right in 50.0 % of 400 problems.",
        ),
    ],
)
def test_one_sentence_says_whether_training_paid(rows: dict[str, float], sentence: str) -> None:
    assert said(rows) == sentence


def test_what_sft_adds_is_no_rival_in_that_sentence() -> None:
    rivals = {CONTROL: 0.5, "maj@4": 0.5}
    sentence = said({**BASE, "synthesizer/sft": 0.7, "synthesizer/sft+grpo": 0.7, **rivals})
    assert sentence.startswith("Training paid: synthesizer/sft+grpo")
    assert sentence.endswith("and above all 2 other rivals.")


def test_other_uses_of_the_trained_synthesizer_are_no_rivals_in_that_sentence() -> None:
    rivals = {CONTROL: 0.5, "maj@4": 0.5, "adaptive": 0.7, "rounds": 0.7}
    sentence = said({**BASE, "synthesizer/grpo": 0.7, **rivals})
    assert sentence.startswith("Training paid: ")
    assert sentence.endswith("and above all 2 other rivals.")


def test_a_control_with_votes_stands_in_for_no_control() -> None:
    sentence = said({**BASE, "synthesizer/grpo": 0.7, "maj@4": 0.5, f"{CONTROL}+vote": 0.5})
    assert sentence.startswith(
        "Training beats every rival, but without the control (synthesizer/no_references)"
    )


def test_where_answers_have_no_vote_random_references_stand_in() -> None:
    rivals = {CONTROL: 0.5, "reference/random": 0.5}
    assert said({**BASE, **rivals, "synthesizer/grpo": 0.7}).startswith("Training paid: ")


def said_of_vote(mean_votes: str, accuracy: float = 0.5) -> str:
    """The sentence on top where 20 rollouts are the budget, and fewer exist."""
    note = f"m=20; fewer rollouts exist for 400 of 400 bundles ({mean_votes} vote on average)"
    table_of = {**BASE, "maj@4": 0.45, CONTROL: 0.5, "synthesizer/sft": 0.7}
    rows = [row(name, value) for name, value in table_of.items()]
    return words.headline(build_results([*rows, row("maj@equal_tokens", accuracy, note=note)], draws=500))


def test_a_vote_below_its_budget_is_not_counted_as_beaten() -> None:
    assert said_of_vote("8.0").endswith(
        "and above all 2 other rivals; maj@equal_tokens is not counted, as fewer rollouts exist than its "
        "budget buys."
    )
    assert said_of_vote("19.5").endswith("and above all 3 other rivals.")  # the budget was rounded up
    assert said_of_vote("8.0", 0.7).endswith("cannot be told apart from maj@equal_tokens.")


def test_a_vote_without_further_rollouts_is_no_comparison_of_its_own() -> None:
    read, unread = replace(RIGHT, tokens=9), replace(UNREAD, tokens=7)
    made = [bundle(unread, *[read] * 3), replace(bundle(read, unread), id="c", problem_id="q")]
    votes = [*reference_rows(made, bundle_votes(made)), majority_row("maj@equal_tokens", made, [], 20)]
    trained = [Row(name, np.array([1.0, 0.0]), 9.0) for name in ("synthesizer/base", "synthesizer/sft")]
    found = build_results([*votes, *trained], draws=50)
    assert [pair["b"] for pair in found["paired"]] == ["synthesizer/base", "maj@k"]
    assert "maj@equal_tokens" in {row["name"] for row in found["rows"]}


def said_of(unread: dict[str, float], **accuracies: float) -> str:
    """The sentence on top where shares of the texts of some rows have no answer."""
    table_of = {"synthesizer/base": 0.4, "synthesizer/sft": 0.7, **accuracies}
    rows = [row(name, value, unparsable=unread.get(name, 0.0)) for name, value in table_of.items()]
    return words.headline(build_results(rows, draws=500))


def test_a_rival_that_lost_by_its_format_is_not_counted_as_beaten() -> None:
    """As universal-self-consistency and genselect with a model of 0.5B, which mostly names no reference."""
    asked = {"universal-self-consistency": 0.1, "genselect": 0.2, "maj@4": 0.5}
    silent = {"universal-self-consistency": 0.97, "genselect": 0.59}
    both = "universal-self-consistency and genselect are not counted, as most of their texts have no answer"
    assert said_of(silent, **asked).endswith(f"and above maj@4; {both} that can be read.")
    assert said_of({"genselect": 0.59}, **asked).endswith(
        "and above all 2 other rivals; genselect is not counted, as most of its texts have no answer that "
        "can be read."
    )
    assert said_of({"genselect": 0.5}, **asked).endswith("and above all 3 other rivals.")
    alone = said_of(silent, genselect=0.2)
    assert alone.startswith("Training beats the untrained model, and no other rival counts: ")
    unread = said_of({CONTROL: 0.6}, **{CONTROL: 0.2, "maj@4": 0.5})
    assert unread.startswith("Training beats every rival, but without the control")


def test_a_rival_that_is_not_beaten_counts_whatever_its_format() -> None:
    silent = {"genselect": 0.6, "self-refine": 0.6}
    sentence = said_of(silent, **{"genselect": 0.7, "self-refine": 0.9, "maj@4": 0.5})
    assert sentence.startswith("Training beats the untrained model, but not every rival")
    assert sentence.endswith(
        "It is above 1 of 3 other rivals, cannot be told apart from genselect, and is below self-refine."
    )


def test_training_did_not_pay_by_format_alone() -> None:
    rivals = {CONTROL: 0.5, "maj@4": 0.5}
    sentence = said_of({"synthesizer/base": 0.6}, **rivals)
    assert sentence.startswith(f"{words._BY_FORMAT}: synthesizer/sft is right in 70.0 %")
    assert said_of({"synthesizer/base": 0.3}, **rivals).startswith("Training paid: ")


def test_many_rivals_are_not_all_named() -> None:
    rivals = dict.fromkeys((f"maj@{k}" for k in range(6)), 0.7)
    assert said({**BASE, **rivals, "synthesizer/sft": 0.7}).endswith(
        "It is above 0 of 6 other rivals, cannot be told apart from maj@0, maj@1, maj@2 and 3 more."
    )


def test_the_control_alone_and_the_explorer_are_rivals() -> None:
    names = ["pass@1", "explorer/greedy", "synthesizer/alone", "synthesizer/no_references", "synthesizer/sft"]
    found = pairs.default_pairs([*names, "synthesizer/alone@T", LONG, "synthesizer/sft@T"])
    assert {b for a, b in found if a == "synthesizer/sft"} == set(names[1:4])
    assert {b for a, b in found if a == "synthesizer/sft@T"} == {"pass@1", "synthesizer/alone@T", LONG}


def test_the_family_is_stated_in_results_and_report() -> None:
    made = results(**{"synthesizer/base": 0.4, "maj@4": 0.5, "synthesizer/sft": 0.7})
    assert made["family"]["size"] == len(made["paired"]) == 2
    assert made["family"]["correction"] == "Holm 1979"
    statement = made["family"]["statement"]
    assert statement.startswith("The 2 paired differences, greedy and sampled, are one family")
    assert "All other differences, between other rows or in the diagnostics, are descriptive" in statement
    assert statement in markdown(made)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pass@4", "baseline"),
        ("maj@equal_tokens", "baseline"),
        ("explorer/greedy", "baseline"),
        ("monolith", "baseline"),
        ("synthesizer/base@T", "untrained"),
        ("synthesizer/base/2x", "untrained"),
        ("synthesizer/alone", "untrained"),
        ("self-refine", "untrained"),
        ("synthesizer/sft+grpo/4x", "trained"),
        ("synthesizer/sft+grpo k=8", "trained"),
        ("synthesizer/no_references@T", "trained"),
        ("explorer/grpo", "trained"),
    ],
)
def test_a_row_is_a_baseline_untrained_or_trained(name: str, kind: str) -> None:
    assert pairs.kind(name) == kind


def full() -> dict[str, Any]:
    names = ["pass@1", "pass@4", "maj@4", "maj@equal_tokens", "explorer/greedy", "universal-self-consistency"]
    names += [f"synthesizer/{n}{t}" for n in ("base", "sft", "sft+grpo", "no_references") for t in ("", "@T")]
    rows = [
        row(name, 0.3 + 0.03 * at, note="fewer rollouts exist for 400 of 400 bundles (8.0 vote on average)")
        for at, name in enumerate(names)
    ]
    return build_results(rows, draws=200)


def printed(made: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(made))
    return console.export_text()


def test_the_terminal_has_80_columns_and_notes_below() -> None:
    lines = printed(full()).splitlines()
    assert max(map(len, lines)) <= 80
    cells = next(line for line in lines if line.startswith(LONG)).split()
    assert cells[0] == LONG  # whole, on one line with its numbers
    assert len(cells) == 8
    table_end = max(at for at, line in enumerate(lines) if line.startswith("synthesizer/"))
    notes = [at for at, line in enumerate(lines) if "fewer rollouts exist" in line]
    assert min(notes) > next(at for at, line in enumerate(lines) if line.startswith(LONG))
    assert table_end > 0


def bundle(*references: Reference) -> Bundle:
    right = sum(r.verdict == "correct" for r in references)
    return Bundle("b", "p", "1 + 1?", "2", "exact", list(references), right, "2", "correct")


UNREAD = Reference("It is two", "", "unparsable", model="small")
RIGHT = Reference(r"\boxed{2}", "2", "correct", model="big")


@pytest.mark.parametrize(("problems", "claimed"), [(3, False), (40, True)])
def test_where_nothing_varies_no_interval_looks_exact(problems: int, claimed: bool) -> None:
    """The bootstrap has nothing to resample: words stand in its place, and few problems claim nothing."""
    rows = [("synthesizer/base", 0.0), ("maj@4", 1.0), ("synthesizer/sft", 1.0)]
    made = build_results([row(name, accuracy, problems) for name, accuracy in rows], draws=500)
    text = markdown(made)
    assert f"| synthesizer/sft | maj@4 | +0.0 | no difference in {problems} problems |" in text
    assert f"| synthesizer/sft | synthesizer/base | +100.0 | the same in {problems} problems |" in text
    assert (
        f"synthesizer/sft cannot be told apart from maj@4: +0.0 points, no difference in {problems}" in text
    )
    assert f"| maj@4 | 100.0 | all the same | {problems} |" in text
    assert not re.search(r"([+-]?[0-9.]+) to \1", text)
    assert ("Training beats" in words.headline(made)) == claimed
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(made))
    shown = console.export_text()
    assert f"no difference in {problems} problems" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_unparsable_texts_are_told_beside_pass_at_1_with_one_sample() -> None:
    bundles = [bundle(UNREAD, RIGHT, RIGHT, RIGHT)]
    first = reference_rows(bundles, np.ones(1))[0]
    assert (first.name, first.unparsable) == ("pass@1", 0.25)
    told = unparsable_texts(bundles, [], {})
    assert told["unparsable"]["pass@1"]["sample"] == "It is two"
    made = build_results([first], diagnostics=told, draws=50)
    (line,) = words.unparsable_lines(made)
    assert line.startswith("Texts without a readable answer: pass@1 25.0 %.")
    assert 'ends in "It is two".' in line
    assert "prompt file" in line
    assert "answer_pattern" in line
    assert line in markdown(made)
    assert "It is two" in printed(made, 200)
    accuracy = sections(made)[0]
    assert dict(zip(accuracy.header, accuracy.rows[0], strict=True))["unparsable"] == "25.0"


def test_few_unparsable_texts_are_a_number_alone() -> None:
    assert unparsable_texts([bundle(UNREAD, *[RIGHT] * 20)], [], {}) == {}


def test_answers_that_are_none_of_the_options_have_another_mend() -> None:
    marked = [Rollout("p", i, r"So \boxed{7}", "", "unparsable") for i in range(3)]
    told = unparsable_texts([bundle(RIGHT)], [*marked, Rollout("p", 4, "so", "", "unparsable")], {})
    remedy = told["unparsable"]["pass@1"]["remedy"]
    assert "the answers are there" in remedy
    assert "ask for the letter" in remedy
    assert "answer_pattern" not in remedy


def test_cut_texts_have_another_mend() -> None:
    cut = [Rollout("p", i, "so", "", "unparsable", finish_reason="length") for i in range(4)]
    told = unparsable_texts([bundle(RIGHT)], cut, {})
    assert "max_completion_tokens" in told["unparsable"]["pass@1"]["remedy"]


def test_accuracy_by_explorer_where_there_are_several() -> None:
    assert by_explorer([bundle(RIGHT, RIGHT)]) == {}
    found = by_explorer([bundle(UNREAD, RIGHT), bundle(UNREAD, RIGHT)])
    made = build_results([row("pass@1", 0.5)], diagnostics=found, draws=50)
    section = next(s for s in sections(made) if s.title == "Accuracy by explorer")
    assert section.rows == [["big", "2", "100.0", "0.0"], ["small", "2", "0.0", "100.0"]]


def test_an_overlap_is_said_everywhere() -> None:
    one = {"model": "runs/sft", "stage": "SFT", "bundles": "train.jsonl", "count": 3, "total": 40}
    made = {**build_results([row("pass@1", 0.5)], draws=50), "overlap": [one]}
    line = "3 of 40 test problems were trained on: runs/sft read them in SFT, from train.jsonl"
    assert line in markdown(made)
    assert line in printed(made, 200)


def test_names_beside_points_never_lie_over_each_other() -> None:
    placed = plots.spread([1.0, 1.0, 1.1, 5.0, 9.9, 10.0], 0.5, 0.0, 10.0)
    assert all(b - a >= 0.5 - 1e-9 for a, b in pairwise(placed))
    assert placed[0] >= 0.0
    assert placed[-1] <= 10.0
    assert placed[3] == 5.0


def test_plots_repeat_and_have_ticks_and_three_colours() -> None:
    made = full()
    drawn = plots.forest(made)
    assert drawn == plots.forest(made)
    assert drawn != plots.forest(made, plots.NARROW)
    for color in plots.KIND_COLOURS.values():
        assert color in drawn
    assert "explorer/greedy, pass@1" in drawn
    both = plots.accuracies(made["rows"])
    assert both.count(">synthesizer/base<") == 1  # one line for greedy and sampled
    assert "synthesizer/base@T" not in both
    assert 'id="xtick_3"' in both


def test_results_stay_plain_json() -> None:
    made = build_results([row("pass@1", 0.5, unparsable=0.125)], draws=50)
    assert json.loads(json.dumps(made))["rows"][0]["unparsable"] == 0.125


def small(differences: list[float]) -> dict[str, Any]:
    """The trained one against the untrained one, which is wrong everywhere, and a vote like that."""
    scores = {"synthesizer/base": np.zeros(len(differences)), "maj@4": np.zeros(len(differences))}
    rows = [Row(name, values, 100.0) for name, values in scores.items()]
    return build_results([*rows, Row("synthesizer/sft", np.array(differences), 100.0)], draws=2000)


def test_what_is_said_agrees_with_the_interval_beside_it() -> None:
    made = small([1.0] * 5)  # p is at least 2 / 16
    assert made["paired"][0]["low_holm"] > 0
    shown = " ".join(printed(made).split())
    assert shown.count("no, p 0.125") == 2
    assert "not told apart" not in shown
    assert "the p decides" in shown
    wide = small([1.0, *[0.5] * 4])
    assert ", but p 0.125." in words.sentences(wide)[0]
    assert "the p decides" not in printed(small([1.0, -1.0] * 30))


def test_a_verdict_of_few_problems_says_how_many_would_do() -> None:
    (few,) = words.power_lines(small([1.0, *[0.0] * 4]))
    assert few.startswith("5 problems are too few: with 2 comparisons corrected together, it takes 7 or")
    (some,) = words.power_lines(small([1.0, 1.0, -1.0, *[0.0] * 27]))
    found = re.fullmatch(
        r"30 problems show .* of about (\d+) points .*; a gain of 3.3 points takes about ([0-9,]+) .*", some
    )
    assert found
    smallest, problems = int(found[1]), int(found[2].replace(",", ""))
    assert problems == pytest.approx(30 * (smallest / 3.33) ** 2, rel=0.1)
    assert "; " not in words.power_lines(small([-1.0, *[0.0] * 29]))[0]
    assert words.power_lines(small([1.0] * 40)) == []  # told
    assert few in words.sentences(small([1.0, *[0.0] * 4]))
