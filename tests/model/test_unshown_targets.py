"""SFT targets from a file of rollouts: each bundle gets a right one that it does not show."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import bundle_with
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import QUICK, arguments

from a2r_train.data.bundles import Bundles
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Problem, Reference, Rollout, Synthesis, write
from a2r_train.train import sft
from a2r_train.train.unshown import holds_rollouts, unshown


class Words:
    """Stands in for a Prompter: a token is a word."""

    def __init__(self, pattern: str = "") -> None:
        self.config = PromptConfig(answer_pattern=pattern)

    def count(self, text: str) -> int:
        return len(text.split())


def solution(problem: int, sample: int, answer: str, verdict: str = "correct", more: str = "") -> Rollout:
    text = rf"Solution {sample}{more}: \boxed{{{answer}}}"
    return Rollout(f"p{problem}", sample, text, answer, verdict, finish_reason="stop", model="m")


def bundle_of(problem: int, number: int, shown: list[Rollout]):
    made = bundle_with(
        Problem(f"p{problem}", f"What is {problem} more?", "5"), ("5",), f"p{problem}/{number}"
    )
    references = [Reference(one.text, one.answer, one.verdict, model="m") for one in shown]
    return replace(made, references=references, n_correct=sum(r.verdict == "correct" for r in references))


def chosen_of(tmp_path, bundles, rollouts, most=2, max_tokens=50, seed=0, pattern=""):
    write(rollouts, tmp_path / "rollouts.jsonl")
    how = {"most": most, "max_tokens": max_tokens, "seed": seed}
    return unshown(str(tmp_path / "rollouts.jsonl"), Bundles("b", bundles), Words(pattern), **how)


def test_the_hardest_bundles_get_a_right_rollout_that_they_do_not_show(tmp_path):
    right = [solution(0, at, "5") for at in range(3)]
    wrong = [solution(0, at, "7", "incorrect") for at in range(3, 6)]
    easy, hard = bundle_of(0, 0, right[:2]), bundle_of(0, 1, wrong[:2])
    found = dict(chosen_of(tmp_path, [easy, hard], [*right, *wrong]))
    assert found[hard.id] in right
    assert found.get(easy.id, right[2]) == right[2]  # the only one left, unless the hard bundle took it
    assert [name for name, _ in chosen_of(tmp_path, [easy, hard], [*right, *wrong], most=1)] == [hard.id]


def test_a_rollout_that_is_cut_or_too_long_is_no_target(tmp_path):
    wrong = solution(0, 0, "7", "incorrect")
    cut = replace(solution(0, 1, "5"), finish_reason="length")
    long = solution(0, 2, "5", more=" so" * 60)
    bundle = bundle_of(0, 0, [wrong])
    with pytest.raises(InputError, match="has more than 50 tokens; explore with more samples"):
        chosen_of(tmp_path, [bundle], [wrong, cut, long])
    assert chosen_of(tmp_path, [bundle], [wrong, cut, long, solution(0, 3, "5")])[0][1].sample == 3


def test_rollouts_without_a_verdict_are_judged(tmp_path):
    unjudged = [solution(0, 0, "7", "unverified"), solution(0, 1, "5", "unverified")]
    found = chosen_of(tmp_path, [bundle_of(0, 0, [])], unjudged)
    assert [(name, one.sample) for name, one in found] == [("p0/0", 1)]


def test_rollouts_without_a_verdict_are_read_by_the_prompt(tmp_path):
    texts = {"5": "I had 7 first. RESULT=5", "7": "I had 5 first. RESULT=7"}
    unjudged = [
        replace(solution(0, at, answer, "unverified"), text=texts[answer], answer="")
        for at, answer in enumerate(texts)
    ]
    (found,) = chosen_of(tmp_path, [bundle_of(0, 0, [])], unjudged, pattern=r"RESULT=(\d+)")
    assert (found[1].text, found[1].answer) == (texts["5"], "5")


def test_rollouts_of_other_problems_with_the_same_ids_are_refused(tmp_path):
    """In a file without ids, these are the numbers of its lines. Some have the right answer by chance, as one
    letter in four.
    """
    bundles = [bundle_of(at, 0, []) for at in range(20)]
    others = [solution(at, 0, "5" if at % 4 == 0 else "9") for at in range(20)]
    with pytest.raises(
        InputError, match=r"'p1' is marked correct with '9', but b has '5'; name the problems"
    ):
        chosen_of(tmp_path, bundles, others)


def test_a_corrected_gold_takes_another_rollout(tmp_path):
    """The stored verdicts are of the time before; what they call right is judged before one is chosen."""
    bundles = [bundle_of(at, 0, []) for at in range(40)]
    stale = [solution(0, at, "9") for at in range(1, 9)]
    found = dict(chosen_of(tmp_path, bundles, [*stale, *(solution(at, 0, "5") for at in range(40))]))
    assert len(found) == 40
    assert found["p0/0"].sample == 0


def test_rollouts_of_other_problems_are_refused(tmp_path):
    with pytest.raises(
        InputError, match="no right rollout of the bundles' problems; is it of other problems"
    ):
        chosen_of(tmp_path, [bundle_of(0, 0, [])], [solution(1, 0, "5")])


@settings(max_examples=60, deadline=None)
@given(
    verdicts=st.lists(st.lists(st.booleans(), min_size=2, max_size=8), min_size=1, max_size=4),
    most=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_no_target_is_shown_used_twice_or_beyond_the_cap(tmp_path_factory, verdicts, most, seed):
    solved = {
        at: [
            solution(at, i, "5" if ok else "7", "correct" if ok else "incorrect") for i, ok in enumerate(each)
        ]
        for at, each in enumerate(verdicts)
    }
    bundles = [bundle_of(at, n, each[n : n + 2]) for at, each in solved.items() for n in range(len(each) - 1)]
    rollouts = [one for each in solved.values() for one in each]
    try:
        found = chosen_of(tmp_path_factory.mktemp("x"), bundles, rollouts, most, seed=seed)
    except InputError:
        found = []
    by_id = {bundle.id: bundle for bundle in bundles}
    assert len({name for name, _ in found}) == len(found)
    assert len({(one.problem_id, one.sample) for _, one in found}) == len(found)
    for name, one in found:
        assert correct(one)
        assert one.problem_id == by_id[name].problem_id
        assert one.text not in {reference.text for reference in by_id[name].references}
    for at, each in solved.items():
        its = [by_id[name] for name, one in found if one.problem_id == f"p{at}"]
        assert len(its) <= most
        free = [b for b in bundles if b.problem_id == f"p{at}" and b.n_correct < sum(map(correct, each))]
        assert bool(its) == bool(free)


def correct(rollout: Rollout) -> bool:
    return rollout.verdict == "correct"


def test_sft_trains_on_rollouts_and_refuses_changed_ones(tmp_path, tiny, capsys):
    rollouts = [
        solution(p, at, "5" if at % 2 else "7", "correct" if at % 2 else "incorrect")
        for p in range(4)
        for at in range(4)
    ]
    bundles = [bundle_of(p, 0, [one for one in rollouts if one.problem_id == f"p{p}"][:2]) for p in range(4)]
    write(bundles, tmp_path / "bundles.jsonl")
    write(rollouts, tmp_path / "rollouts.jsonl")
    targets = ("--targets", str(tmp_path / "rollouts.jsonl"))
    assert sft.main(arguments(tmp_path, tiny, "sft", *QUICK, *targets)) == 0
    assert "4 verified answers to 4 bundles" in (tmp_path / "sft/README.md").read_text()
    write(rollouts[:8], tmp_path / "rollouts.jsonl")
    assert sft.main(arguments(tmp_path, tiny, "sft", *QUICK, *targets)) == 2
    assert "rollouts.jsonl" in capsys.readouterr().err


def test_a_false_verdict_of_somebody_else_is_found(tmp_path, tiny, capsys):
    write([bundle_of(0, 0, [solution(0, 1, "7", "incorrect")])], tmp_path / "bundles.jsonl")
    write([solution(0, 0, "7", "correct")], tmp_path / "rollouts.jsonl")
    targets = ("--targets", str(tmp_path / "rollouts.jsonl"))
    assert sft.main(arguments(tmp_path, tiny, "sft", *QUICK, *targets)) == 2
    assert "is marked correct with '7', but" in capsys.readouterr().err


def test_targets_of_bundles_are_read_as_before(tmp_path):
    write([Synthesis("b0", 0, "x", "5", "correct", 1, 1, "stop", "m", 0)], tmp_path / "targets.jsonl")
    write([solution(0, 0, "5")], tmp_path / "rollouts.jsonl")
    assert not holds_rollouts(str(tmp_path / "targets.jsonl"))
    assert holds_rollouts(str(tmp_path / "rollouts.jsonl"))
    assert len(read(Rollout, str(tmp_path / "rollouts.jsonl"))) == 1


def test_a_prompt_with_sections_needs_other_targets(tmp_path, tiny, capsys):
    """An explorer's solution has no verdicts on references."""
    write([bundle_of(0, 0, [solution(0, 1, "7", "incorrect")])], tmp_path / "bundles.jsonl")
    write([solution(0, 0, "5")], tmp_path / "rollouts.jsonl")
    prompt = str(Path(__file__).parents[2] / "recipes/prompts/prompt-judge.yaml")
    targets = ("--targets", str(tmp_path / "rollouts.jsonl"), "--prompt", prompt)
    assert sft.main(arguments(tmp_path, tiny, "sft", *QUICK, *targets)) == 2
    assert "rollouts lack sections of the prompt; let the targets be sampled" in capsys.readouterr().err
