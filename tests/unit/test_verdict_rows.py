"""The verdicts of a synthesizer in the evaluation: AUC within a bundle, the weighted vote, and the table."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import bundle_with
from hypothesis import given
from hypothesis import strategies as st
from test_sections import PROMPT, written

from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.report.pairs import kind
from a2r_train.evaluate.report.tables import sections
from a2r_train.evaluate.report.write import build_results, markdown
from a2r_train.evaluate.rows.row import vote_of
from a2r_train.evaluate.rows.verdicts import verdict_rows, weighted_vote, within_bundles
from a2r_train.evaluate.verdict_words import right_share
from a2r_train.prompts import PromptConfig
from a2r_train.records import Bundle, Problem, Synthesis

ANSWERS = st.lists(st.sampled_from(["5", "6", "7", ""]), min_size=1, max_size=6)


def bundle(identity: str, *answers: str) -> Bundle:
    return bundle_with(Problem(identity, "2 + 3?", "5"), answers, identity)


def says(bundle: Bundle, verdicts: str, sample: int = 0, solution: str = "5") -> Synthesis:
    """R, W or - for each reference."""
    words = {"R": "right", "W": "wrong", "-": "unclear"}
    lines = [f"Reference {at}: {words[letter]}" for at, letter in enumerate(verdicts, 1)]
    text = written(solution, "\n".join(lines), "5")
    return Synthesis(bundle.id, sample, text, "5", "correct", 100, 20, "stop", "m", 0)


@pytest.mark.parametrize(
    ("answers", "weights", "expected"),
    [
        ("6657", [0, 0, 1, 0], 1.0),  # one that is called right beats two that are called wrong
        ("6657", [1, 0, 1, 0], 0.0),  # of equal weights the more frequent answer
        ("6557", [0, 0, 0, 0], 1.0),  # all are called wrong: the plain vote
        ("5677", [1, 1, 0, 0], 0.5),  # a tie
        ("5667", [0.5, 0.5, 0.5, 1], 0.0),
        ("    ", [1, 1, 1, 1], 0.0),  # nobody votes
    ],
)
def test_the_weighted_vote(answers: str, weights: list[float], expected: float) -> None:
    assert weighted_vote(bundle("a", *(a.strip() for a in answers)), weights) == expected


@given(ANSWERS, st.sampled_from([0.0, 0.5, 1.0]))
def test_equal_weights_are_the_plain_vote(answers: list[str], weight: float) -> None:
    one = bundle("a", *answers)
    assert weighted_vote(one, [weight] * len(answers)) == vote_of(one.references, "math")


@given(ANSWERS)
def test_verdicts_that_are_all_right_find_what_can_be_found(answers: list[str]) -> None:
    one = bundle("a", *answers)
    right = [float(r.verdict == "correct") for r in one.references]
    assert weighted_vote(one, right) == float(any(right))
    found = within_bundles([one], {"a": right})
    assert found["pairs"] == right.count(1.0) * right.count(0.0)
    assert found["auc"] == 1 or not found["pairs"]


def test_auc_is_of_pairs_within_a_bundle() -> None:
    both, right, wrong = bundle("a", "5", "6", "7"), bundle("b", "5", "5"), bundle("c", "6", "6")
    scores = {"a": [0.5, 0.0, 0.5], "b": [0.0, 0.0], "c": [1.0, 1.0]}
    assert within_bundles([both, right, wrong], scores) == {"auc": 0.75, "pairs": 2}


@pytest.fixture
def asked() -> tuple[EvaluateConfig, list[Bundle], dict[str, list[Synthesis]]]:
    config = EvaluateConfig(bundles="b", output_dir="o", base="base", samples=2)
    bundles = [bundle("a", "6", "6", "5"), bundle("b", "6", "5", "7")]
    greedy = [says(bundles[0], "WWR"), says(bundles[1], "R-W", solution="6")]
    sampled = [says(b, verdicts, at) for b in bundles for at, verdicts in enumerate(("WWR", "RRR"))]
    names = ("synthesizer/alone", "synthesizer/alone@T")
    return (
        config,
        bundles,
        {**dict.fromkeys(names, greedy), "synthesizer/base": greedy, "synthesizer/base@T": sampled},
    )


def work(prompt: PromptConfig) -> Any:
    return SimpleNamespace(prompt=lambda _: prompt)


def test_rows_and_table_of_a_prompt_with_sections(asked: Any) -> None:
    config, bundles, found = asked
    (row,), details = verdict_rows(config, work(PROMPT), bundles, found)
    assert row.name == "synthesizer/base/verdict-vote"
    assert kind(row.name) == "untrained"
    assert row.scores.tolist() == [1.0, 0.0]
    greedy, sampled = (details["verdicts"][f"synthesizer/base{end}"] for end in ("", "@T"))
    assert greedy == {
        "complete": 0.5,
        "own_solution": 0.5,
        "right_called_right": 0.5,
        "wrong_called_wrong": 0.75,
        "unsaid": pytest.approx(1 / 6),
        "auc": 0.75,
        "pairs": 4,
    }
    # Mean verdicts .5 .5 1 of the references 6 6 5, and of 6 5 7.
    assert sampled["auc"] == 0.625
    table = next(
        s for s in sections(build_results([row], diagnostics=details)) if s.title.startswith("Verdicts")
    )
    assert table.rows[0] == ["synthesizer/base", "50.0", "50.0", "50.0", "75.0", "16.7", "75.0 (n=4)", "-"]
    assert "Verdicts on the references" in markdown(build_results([row], diagnostics=details))


def test_how_sure_it_was_decides_where_the_words_are_equal(asked: Any) -> None:
    config, bundles, found = asked
    told = zip(found["synthesizer/base"], [[0.1, 0.2, 0.9], [0.6, 0.8, 0.4]], strict=True)
    found["synthesizer/base"] = [replace(one, verdict_probabilities=values) for one, values in told]
    (row,), details = verdict_rows(config, work(PROMPT), bundles, found)
    assert row.scores.tolist() == [1.0, 1.0]  # of 6 5 7 the words had called 6 right
    assert row.note.endswith("as sure as it was of them")
    found = details["verdicts"]
    assert (found["synthesizer/base"]["auc"], found["synthesizer/base"]["sure_auc"]) == (0.75, 1.0)
    assert "sure_auc" not in found["synthesizer/base@T"]  # not all of its texts have them


@pytest.mark.parametrize(
    ("said", "tokens", "share"),
    [
        ("right.", {" right": 0.6, " wrong": 0.2, " unclear": 0.2}, 0.75),
        ("Wrong", {"W": 0.5, "R": 0.5}, 0.5),
        ("incorrect", {" in": 0.3, " correct": 0.1}, 0.25),
        ("not right", {" not": 0.6, " right": 0.2}, 0.25),
        ("not wrong", {" not": 0.6, " wrong": 0.2}, 0.75),
        ("correct", {" maybe": 1.0}, 1.0),
        ("not correct", {}, 0.0),
    ],
)
def test_the_share_of_right(said: str, tokens: dict[str, float], share: float) -> None:
    assert right_share(tokens, said) == pytest.approx(share)


VERDICT = st.sampled_from(["right", "wrong", "not right", "unclear", "right. Reference {n}: wrong"])


@given(
    st.lists(VERDICT, min_size=1, max_size=5), st.sampled_from(["", "<think>Reference 1: right</think>\n"])
)
def test_each_verdict_is_found_in_its_text(said: list[str], thought: str) -> None:
    lines = [f"Reference {n}: {word.format(n=n)}, as it adds." for n, word in enumerate(said, 1)]
    text = thought + written("5", "\n".join(lines), "5") + "\n"
    starts = PROMPT.verdict_starts(text, len(said))
    found = ["" if start is None else text[start:].partition(",")[0] for start in starts]
    assert found == [word if word in ("right", "wrong", "not right") else "" for word in said]


def test_without_sections_there_is_nothing(asked: Any) -> None:
    config, bundles, found = asked
    assert verdict_rows(config, work(PromptConfig()), bundles, found) == ([], {})
    assert "Verdicts" not in markdown(build_results([]))
