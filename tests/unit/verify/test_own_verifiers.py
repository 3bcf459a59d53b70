"""Verifiers of one's own: what they are given, what they may return, and how their answers vote."""

from functools import cache
from pathlib import Path

import pytest

from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import CORRECT, INCORRECT, TIMEOUT, UNPARSABLE
from a2r_train.verify import extract, has_vote, judge, judge_all, majority, pool, traits_of
from a2r_train.verify import traits as known
from a2r_train.verify.traits import Traits

OWN = """
def close(answer, gold):
    return abs(float(answer) - float(gold)) < 1

def score(answer, gold):
    return 1 - abs(float(answer) - float(gold)) / 10

def shows_work(answer, gold, text):
    return answer == gold and "because" in text

def in_range(answer, gold, row):
    return row["metadata"]["low"] <= float(answer) <= row["metadata"]["high"]

def nothing(answer, gold):
    pass

def falsy(answer, gold):
    return answer and answer == gold and []

def a_pair(answer, gold):
    return False, "no match"

def a_word(answer, gold):
    return "incorrect"

def two(answer, gold):
    return 2

def a_numpy_score(answer, gold):
    import numpy
    return numpy.float32(0.25)

def a_numpy_verdict(answer, gold):
    import numpy
    return numpy.bool_(answer == gold)

async def later(answer, gold):
    return False

def leaves(answer, gold):
    raise SystemExit(3)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_verifiers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool._stop_all()  # workers that run already have another import path
    monkeypatch.setattr(known, "_own", cache(known._own.__wrapped__))


def verdict(text: str, gold: str, name: str, row: dict[str, object] | None = None) -> str:
    return judge_all([(text, gold, f"own_verifiers.{name}")], [row or {}])[0].verdict


def test_answer_and_gold() -> None:
    assert verdict(r"\boxed{5.5}", "5", "close") == CORRECT
    assert verdict(r"\boxed{7}", "5", "close") == INCORRECT
    assert verdict("no box", "5", "close") == UNPARSABLE


def test_a_score_needs_a_threshold() -> None:
    assert verdict(r"\boxed{6}", "5", "score>=0.9") == CORRECT
    assert verdict(r"\boxed{8}", "5", "score>=0.9") == INCORRECT
    with pytest.raises(InputError, match=r"returned 0\.9, and a score needs a threshold"):
        verdict(r"\boxed{6}", "5", "score")
    with pytest.raises(InputError, match="returned None"):
        verdict(r"\boxed{6}", "5", "nothing")


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a_pair", "returned .*no match.*neither True nor False"),
        ("a_word", "returned 'incorrect', which is neither"),
        ("two", "returned 2, and a score needs a threshold"),
        ("a_numpy_score", "returned 0.25, and a score needs a threshold"),
        ("later", "returned <coroutine .* neither True nor False"),
    ],
)
def test_what_is_no_verdict_earns_nothing(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        verdict(r"\boxed{6}", "5", name)


def test_verdicts_of_numpy_and_falsy_values() -> None:
    assert verdict(r"\boxed{5}", "5", "a_numpy_verdict") == CORRECT
    assert verdict(r"\boxed{6}", "5", "a_numpy_verdict") == INCORRECT
    assert verdict(r"\boxed{5}", "5", "falsy") == INCORRECT


def test_a_verifier_that_does_not_answer_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pool._tell_late.cache_clear()
    for answer in ("5", "6"):
        assert verdict(rf"\boxed{{{answer}}}", "5", "leaves") == TIMEOUT
    assert caplog.text.count("'own_verifiers.leaves' did not answer within its deadline_s") == 1


def test_the_whole_text() -> None:
    assert verdict(r"because so, \boxed{5}", "5", "shows_work") == CORRECT
    assert verdict(r"\boxed{5}", "5", "shows_work") == INCORRECT
    assert verdict(r"<think>because \boxed{5}", "5", "shows_work") == UNPARSABLE


def test_the_row() -> None:
    row = {"metadata": {"low": 3, "high": 6}}
    assert verdict(r"\boxed{4}", "", "in_range", row) == CORRECT
    assert verdict(r"\boxed{7}", "", "in_range", row) == INCORRECT
    with pytest.raises(InputError, match="KeyError: 'metadata'"):
        verdict(r"\boxed{7}", "", "in_range")


def test_equal_answers_vote_together_where_the_function_sees_more() -> None:
    assert majority(["4", "5", "4"], "own_verifiers.in_range").groups == [[0, 2], [1]]
    assert majority(["4", "4.5", "9"], "own_verifiers.close").groups == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"Answer: (.*)", "So.\nAnswer: 4\nOr better\nAnswer: 5 apples", "5 apples"),
        (r"<answer>(.*?)</answer>", "<answer>1</answer> no, <answer>\n2\n</answer>", "2"),
        (r"Answer: (.*)", r"\boxed{3}", ""),
        (r"Answer: (.*)", "<think>Answer: 3", ""),
        ("", r"\boxed{3}", "3"),
    ],
)
def test_the_prompt_says_where_the_answer_stands(pattern: str, text: str, answer: str) -> None:
    assert extract(PromptConfig(answer_pattern=pattern).judged_text(text)) == answer


@pytest.mark.parametrize("pattern", ["Answer: .*", "(a)(b)", "("])
def test_a_pattern_without_one_group_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="answer_pattern"):
        PromptConfig(answer_pattern=pattern)


TRAITS = """
def tested(answer, gold, row):
    return answer == "right"
tested.vote = "none"
tested.answer_in = "code"

def said(answer, gold):
    return answer.lower() == gold.lower()
said.vote = lambda answer: answer.lower().strip("!")
said.answer_in = "tags"

def counted(answer, gold):
    return answer == gold
counted.vote = "often"

def patient(answer, gold):
    import time
    time.sleep(1.2)
    return True
patient.deadline_s = 30

def hasty(answer, gold):
    return True
hasty.deadline_s = "soon"

def placed(answer, gold):
    return answer == gold
placed.answer_in = "a footnote"
"""


@pytest.fixture
def traits(tmp_path: Path) -> None:
    (tmp_path / "own_verifiers.py").write_text(TRAITS)


@pytest.mark.usefixtures("traits")
def test_a_verifier_says_where_its_answer_stands_and_that_it_has_no_vote() -> None:
    name = "own_verifiers:tested"
    assert traits_of(name) == Traits("none", "code", frozenset({"row"}))
    assert extract("```\nwrong\n```\n```\nright\n```", name) == "right"
    assert not has_vote(name)
    assert majority(["a", "a"], name).groups == []
    assert judge("```\nright\n```", "", name) == CORRECT
    assert judge("right", "", name) == UNPARSABLE


@pytest.mark.usefixtures("traits")
def test_a_verifier_gives_canonical_forms() -> None:
    name = "own_verifiers:said"
    assert traits_of(name) == Traits("canonical", "tags", frozenset())
    assert majority(["Yes", "no", "yes!", "", "YES"], name).groups == [[0, 2, 4], [1]]
    assert judge("<answer>YES</answer>", "yes", name) == CORRECT
    assert judge(r"\boxed{yes} is it", "yes", name) == UNPARSABLE


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("counted", "its vote is 'often'"),
        ("placed", "its answer_in is 'a footnote'"),
        ("hasty", "ValueError: could not convert string to float: 'soon'"),
    ],
)
@pytest.mark.usefixtures("traits")
def test_a_verifier_that_says_what_none_can(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        traits_of(f"own_verifiers:{name}")


@pytest.mark.usefixtures("traits")
def test_a_verifier_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "DEADLINE_S", 0.3)
    assert judge(r"\boxed{1}", "2", "own_verifiers:patient") == CORRECT
