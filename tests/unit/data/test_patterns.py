"""Bundles by the agreement of their references: patterns, mixtures by them, and what agreement means."""

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import bundle_with
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.data.agreement import Compared, Side, by_pattern, compared
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.mixture import Facts, cap_all_wrong, check_vote, choose, contested, shares_in
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.inference.adaptive import Adaptive
from a2r_train.records import CORRECT, Bundle, Problem
from a2r_train.verify.vote import agreed, agreement_of, agreements, is_unanimous

PATTERNS = ("4", "3-1", "2-2", "2-1-1", "1-1-1-1")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "1", "1.0", "2", r"\frac{1}{2}", "0.5", "x"]), max_size=8))
def test_a_pattern_is_of_equivalent_answers_and_of_texts_without_one(answers: list[str]) -> None:
    pattern = agreement_of(answers)
    sizes = [int(size) for size in pattern.split("-") if size]
    read_as = {"1.0": "1", r"\frac{1}{2}": "0.5"}
    groups = Counter(read_as.get(answer, answer) for answer in answers if answer)
    assert sizes == sorted([*groups.values(), *[1] * answers.count("")], reverse=True)
    assert (
        is_unanimous(pattern) == (len(answers) > 1 and len(groups) == 1 and "" not in answers) or not answers
    )
    assert Adaptive(skip_agreement=1.0).skips(answers, "math") == (bool(answers) and is_unanimous(pattern))
    assert agreements([(answers, "math"), (["1"], "math")]) == [pattern, "1"]


@pytest.mark.parametrize(
    ("answers", "share", "at"),
    [
        (["2", "1", "1", "1.0"], 0.75, 1),
        (["2", "1", "1", ""], 0.75, None),
        (["1", "1", "2"], 0.67, 0),  # rounded
        (["1", "1", "2"], 0.68, None),
        (["1"] * 14 + ["2"] * 11, 0.56, 0),  # 0.56 * 25 is above 14 in floating point
        (["1"], 0.75, None),
        ([], 1.0, None),
    ],
)
def test_enough_references_agree(answers: list[str], share: float, at: int | None) -> None:
    assert agreed([(answers, "math"), (answers, "python_tests")], share) == [at, None]


def drawn(count: int, seed: int, problems: int = 400) -> list[Bundle]:
    """Bundles of problems of any difficulty: a solution is right with its problem's chance, or one of three
    wrong answers, or has none."""
    rng = random.Random(seed)
    chances = [rng.betavariate(0.8, 0.8) for _ in range(problems)]
    found = []
    for at in range(count):
        number = at % problems
        answers = [
            "1" if rng.random() < chances[number] else rng.choice(["2", "2", "3", "4", ""]) for _ in range(4)
        ]
        problem = Problem(f"{seed}-{number}", f"{seed} {number}?", "1", "exact")
        found.append(bundle_with(problem, answers, f"{seed}-{number}/{at}"))
    return found


def facts_of(bundles: list[Bundle]) -> Facts:
    votes = [([r.answer for r in b.references], b.verifier) for b in bundles]
    return Facts(
        np.arange(len(bundles)),
        np.array([len(b.references) for b in bundles]),
        np.array([b.n_correct for b in bundles]),
        np.array([b.majority_verdict == CORRECT for b in bundles]),
        np.zeros(len(bundles)),
        np.array([pattern.encode() for pattern in agreements(votes)]),
    )


def mixed(bundles: list[Bundle], mixture: str, **options: Any) -> list[Bundle]:
    given = {"easy_percent": 50.0, "max_share_correct": 0.5, "rng": random.Random(0), **options}
    return [bundles[at] for at in choose(facts_of(bundles), mixture, **given)[0]]


POOL = drawn(3000, seed=1)
NATURAL, FACTS = by_pattern(POOL), facts_of(POOL)
LABELS = FACTS.agreement.astype(str)


def kept_of(shares: dict[str, float], seed: int) -> np.ndarray:
    """The numbers of the bundles of POOL that these shares keep."""
    settings = {"easy_percent": 50.0, "max_share_correct": 0.5, "rng": random.Random(seed)}
    kept, dropped = choose(FACTS, "patterns", pattern_shares=shares, **settings)  # type: ignore[arg-type]
    assert len(kept) + sum(dropped.values()) == len(POOL)
    assert np.all(np.diff(kept) > 0)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PATTERNS), st.integers(0, 5), min_size=1).filter(
        lambda d: any(d.values())
    ),
    st.floats(0.1, 1),
    st.integers(0, 2**16),
)
def test_the_shares_asked_for_are_met_by_the_largest_set_that_has_them(
    weights: dict[str, int], whole: float, seed: int
) -> None:
    whole = 1.0 if len(weights) == len(PATTERNS) else whole  # all are named, so that nothing fills up to 1
    shares = {name: whole * weight / sum(weights.values()) for name, weight in weights.items()}
    kept = LABELS[kept_of(shares, seed)]
    group, every = (np.where(np.isin(some, list(shares)), some, "others") for some in (kept, LABELS))
    asked = {**shares, "others": 1 - whole}
    for name, share in asked.items():
        assert abs((group == name).sum() - share * len(kept)) <= len(asked)
    scarcest = min((every == name).sum() / share for name, share in asked.items() if share > 1e-9)
    assert abs(len(kept) - scarcest) <= len(asked)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16))
def test_within_a_pattern_the_vote_is_right_as_often_as_the_rollouts_have_it(seed: int) -> None:
    kept = kept_of({"4": 0.1, "3-1": 0.3, "2-2": 0.02, "2-1-1": 0.3}, seed)
    for name, natural in NATURAL.items():
        right = FACTS.majority_right[kept[LABELS[kept] == name]]
        left = 1 - len(right) / natural.bundles  # of a finite pool
        error = math.sqrt(natural.right * (1 - natural.right) / len(right) * left)
        assert abs(right.mean() - natural.right) <= 5 * error + 1e-9


def test_every_bundle_of_a_pattern_is_as_likely_to_be_kept() -> None:
    """Of unanimous bundles a tenth or so stays: over many seeds each of them as often, right or wrong."""
    kept = np.bincount(
        np.concatenate([kept_of({"4": 0.05}, seed) for seed in range(200)]), minlength=len(POOL)
    )
    counts = kept[LABELS == "4"]
    assert 0.8 < counts.var() / (counts.mean() * (1 - counts.mean() / 200)) < 1.2  # binomial


def test_contested_bundles_are_those_that_do_not_all_agree() -> None:
    kept, dropped = contested(FACTS)
    assert by_pattern([POOL[at] for at in kept]) == {k: v for k, v in NATURAL.items() if k != "4"}
    assert dropped.total() == NATURAL["4"].bundles
    assert contested(facts_of([]))[0].tolist() == []


def by_right_references(bundles: list[Bundle]) -> list[Bundle]:
    """A third each of none, one and two or more right references, as in the issue's mixture."""
    parts: list[list[Bundle]] = [[], [], []]
    for one in bundles:
        parts[min(one.n_correct, 2)].append(one)
    return [one for part in parts for one in part[: min(map(len, parts))]]


def test_a_mixture_by_right_references_is_off_and_one_by_patterns_is_not() -> None:
    validation = by_pattern(drawn(500, seed=2, problems=500))
    for trained in (
        by_right_references(POOL),
        mixed(POOL, "hard_plus_easy"),
        [POOL[at] for at in cap_all_wrong(FACTS.n_correct, 0.0, random.Random(0))[0]],
    ):
        off = [one for one in compared(by_pattern(trained), validation) if one.is_off]
        assert off
        assert all(abs(one.training.right - one.validation.right) > 0.1 for one in off)
    shares = {"3-1": 0.4, "2-1-1": 0.4, "4": 0.02}
    for trained in (POOL, mixed(POOL, "patterns", pattern_shares=shares), POOL[:600]):
        assert not [one for one in compared(by_pattern(trained), validation) if one.is_off]


@pytest.mark.parametrize(
    ("training", "validation", "off"),
    [
        (Side(400, 200, 0.83), Side(90, 90, 0.56), True),  # the issue's
        (Side(400, 200, 0.83), Side(29, 29, 0.40), False),  # too few problems
        (Side(400, 29, 0.83), Side(90, 90, 0.40), False),
        (Side(60, 60, 0.60), Side(60, 60, 0.45), False),  # chance
        (Side(9000, 9000, 0.60), Side(9000, 9000, 0.51), False),  # told apart, and below 10 points
        (Side(9000, 9000, 0.60), Side(9000, 9000, 0.49), True),
        (Side(90, 90, 1.0), Side(90, 90, 1.0), False),
    ],
)
def test_a_difference_is_red_above_ten_points_and_above_chance(
    training: Side, validation: Side, off: bool
) -> None:
    assert Compared("3-1", training, validation).is_off == off


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "expected patterns and their shares"),
        ("{", "expected patterns and their shares"),
        ('{"1-3": 0.5}', "'1-3' is not a pattern of 4 references"),
        ('{"2-1": 0.5}', "'2-1' is not a pattern of 4 references"),
        ('{"three": 0.5}', "the largest first, such as 3-1"),
        ('{"3-1": 1.5}', "3-1 is 1.5; expected a share from 0 to 1"),
        ('{"3-1": true}', "3-1 is True; expected a share"),
        ('{"3-1": 0.6, "4": 0.6}', "add up to 1.2; expected at most 1"),
    ],
)
def test_what_is_no_share_of_a_pattern_is_named(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        shares_in(text, range(4, 5))
    assert shares_in('{"3-1": 0.5, "1-1": 0}', range(2, 5)) == {"3-1": 0.5, "1-1": 0}


def test_a_pattern_that_does_not_occur_is_named_with_those_that_do() -> None:
    with pytest.raises(InputError, match="no bundle of pattern 5; the patterns are 1-1-1-1, 2-1-1"):
        mixed(POOL, "patterns", pattern_shares={"5": 0.1})


def test_without_a_vote_there_are_no_patterns() -> None:
    for keys, named in ((("patterns",), "mixture patterns"), (("all", True), "contested_only")):
        with pytest.raises(InputError, match=f"{named} needs the vote"):
            check_vote(keys[0], "python_tests", *keys[1:])
        check_vote(keys[0], "math", *keys[1:])


def config_of(tmp_path: Path, name: str, rollouts: str, problems: str, **keys: Any) -> BundleConfig:
    return BundleConfig(rollouts, str(tmp_path / name), problems, **keys)


def test_the_stage_draws_by_patterns_and_its_card_says_what_came(
    problems: str, rollouts: str, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"bundles_per_problem": 6, "k": 3, "k_min": 2}
    folder = bundle(config_of(tmp_path, "contested", rollouts, problems, contested_only=True, **keys))
    made = read(Bundle, str(folder / "train.jsonl"))
    card = (folder / "README.md").read_text()
    assert not {"2", "3"} & by_pattern(made).keys()
    assert "contested_only" in card
    assert "| unanimous, and contested_only |" in card
    assert "| references | bundles | share |" in card
    assert {len(one.references) for one in made} == {2, 3}
    for name, side in by_pattern(made).items():
        assert f"| {name} | {side.bundles} | {side.bundles / len(made):.1%} | {side.right:.1%} |" in card

    shares = "{3: 0.0, 2: 0.0, 2-1: 0.5}"
    named = {"mixture": "patterns", "pattern_shares": shares, **keys}
    folder = bundle(config_of(tmp_path, "patterns", rollouts, problems, **named))
    found = by_pattern(read(Bundle, str(folder / "train.jsonl")))
    assert {"2", "3"} & found.keys() == set()
    assert abs(found["2-1"].bundles - sum(side.bundles for side in found.values()) / 2) <= 1
    assert "`pattern_shares: " in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"mixture": "patterns"}, "go together"),
        ({"pattern_shares": '{"4": 0.1}'}, "go together"),
        ({"mixture": "patterns", "pattern_shares": '{"4": 0.1}', "max_all_wrong": 0.5}, "remove one of them"),
        ({"mixture": "patterns", "pattern_shares": '{"4": 0.1}', "contested_only": True}, "leaves out"),
        ({"contested_only": True, "k": 1}, "k must be at least 2"),
        ({"mixture": "patterns", "pattern_shares": '{"2-1": 0.1}'}, "is not a pattern of 4 references"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(
    keys: dict[str, Any], says: str, problems: str, rollouts: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        bundle(config_of(tmp_path, "out", rollouts, problems, **keys))
