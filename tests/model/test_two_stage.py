"""The loop as a Python object: two engines, answers in order, tokens that add up, and prices."""

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from a2r_train.engines import Completion, Engine, Sampling, load_engine
from a2r_train.errors import InputError
from a2r_train.inference.adaptive import Adaptive
from a2r_train.inference.price import Price
from a2r_train.inference.rounds import Rounds
from a2r_train.inference.two_stage import Answer, TwoStage
from a2r_train.models import context_length
from a2r_train.prompts import PromptConfig, Prompter, visible
from a2r_train.records import Problem

PROBLEMS = ["What is 1 + 2?", "What is 3 + 4?", "What is 5 + 6?"]
SHORT = Sampling(max_completion_tokens=6)


class Recorded(Engine):
    """An engine that keeps what went through it; with `texts` it answers by script."""

    def __init__(self, engine: Engine, texts: Sequence[str] = ()) -> None:
        self.engine, self.texts = engine, list(texts)
        self.name, self.parameters, self.tokenizer = engine.name, engine.parameters, engine.tokenizer
        self.chats: list[Any] = []
        self.completions: list[Completion] = []

    def generate(self, chats: Sequence[Any], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        made = [Completion(self.texts.pop(0), 10, 5, "stop") for _ in chats] if self.texts else []
        made = made or self.engine.generate(chats, sampling, seeds)
        self.chats += chats
        self.completions += made
        return made


@pytest.fixture
def engines(tiny: str, other_tiny: str) -> tuple[Recorded, Recorded]:
    return Recorded(load_engine(tiny)), Recorded(load_engine(other_tiny))


def loop_of(engines: tuple[Any, Any], **options: Any) -> TwoStage:
    return TwoStage(*engines, **{"k": 3, "exploring": SHORT, "synthesising": SHORT, **options})


def answers_of(answer: Answer) -> list[str]:
    return [reference.answer for reference in answer.references]


def test_answers_come_in_order_with_their_references(engines: tuple[Recorded, Recorded]) -> None:
    answers = loop_of(engines).solve_all(PROBLEMS)
    explorer, synthesizer = engines
    assert [a.problem for a in answers] == PROBLEMS
    assert [r.text for a in answers for r in a.references] == [c.text for c in explorer.completions]
    assert [a.text for a in answers] == [c.text for c in synthesizer.completions]
    for problem, chat, answer in zip(PROBLEMS, synthesizer.chats, answers, strict=True):
        assert problem in chat[-1]["content"]
        assert len(set(answer.references)) == len(answer.references) == 3
        assert "Reference 3:" in chat[-1]["content"]
        assert "Reference 4:" not in chat[-1]["content"]
        assert answer.seconds > 0


def test_tokens_add_up_and_prices_apply(engines: tuple[Recorded, Recorded]) -> None:
    explorer, synthesizer = engines
    prices = {explorer.name: Price(1.0, 2.0), synthesizer.name: Price(30.0, 40.0)}
    answers = loop_of(engines, prices=prices).solve_all(PROBLEMS)
    made = sum(c.completion_tokens for c in explorer.completions)
    assert sum(a.tokens["references"] for a in answers) == made
    for i, (answer, synthesis) in enumerate(zip(answers, synthesizer.completions, strict=True)):
        read = explorer.completions[3 * i].prompt_tokens
        assert answer.tokens["explorer_prompt"] == read > 0
        assert answer.tokens["synthesizer_prompt"] == synthesis.prompt_tokens > 0
        assert answer.tokens["synthesis"] == synthesis.completion_tokens > 0
        dollars = (
            read
            + 2 * answer.tokens["references"]
            + 30 * synthesis.prompt_tokens
            + 40 * synthesis.completion_tokens
        )
        assert answer.cost == pytest.approx(dollars / 1e6)
    assert loop_of(engines).solve(PROBLEMS[0]).cost == 0


def test_a_reference_that_was_never_answered_takes_no_prompt_tokens_away(
    engines: tuple[Recorded, Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [
        Completion("so 1", 10, 5, "stop"),
        Completion("so 2", 10, 5, "stop"),
        Completion("", 0, 0, "failed"),
    ]
    monkeypatch.setattr(engines[0], "generate", lambda *_: lost)
    answer = loop_of(engines).solve(PROBLEMS[0])
    assert (answer.tokens["explorer_prompt"], answer.tokens["references"]) == (10, 10)


def test_one_problem_is_solved_as_in_a_batch_and_seeds_repeat(engines: tuple[Recorded, Recorded]) -> None:
    together = loop_of(engines, seed=4).solve_all(PROBLEMS)
    alone = loop_of(engines, seed=4).solve(Problem("id", PROBLEMS[1], "7"))
    assert (alone.text, alone.references, alone.tokens) == (
        together[1].text,
        together[1].references,
        together[1].tokens,
    )
    assert loop_of(engines, seed=5).solve(PROBLEMS[1]).references != alone.references


def test_models_may_be_named_by_their_folders(tiny: str, other_tiny: str) -> None:
    answer = TwoStage(tiny, other_tiny, k=2, exploring=SHORT, synthesising=SHORT).solve(PROBLEMS[0])
    assert len(answer.references) == 2
    assert answer.text


def test_answers_are_extracted_by_the_verifier(engines: tuple[Recorded, Recorded]) -> None:
    explorer, synthesizer = engines
    scripted = (
        Recorded(explorer.engine, ["\\boxed{7}", "none", "\\boxed{8}"]),
        Recorded(synthesizer.engine, ["so \\boxed{7}"]),
    )
    answer = loop_of(scripted).solve(PROBLEMS[1])
    assert (answer.answer, answers_of(answer)) == ("7", ["7", "", "8"])
    choice = Problem("c", "Which? (A) 1 (B) 2", "B", "multiple_choice")
    for verifier, problem in (("multiple_choice", choice.problem), (None, choice)):
        scripted = (
            Recorded(explorer.engine, ["The answer is (B)."] * 3),
            Recorded(synthesizer.engine, ["The answer is (A)."]),
        )
        answer = loop_of(scripted, verifier=verifier).solve(problem)
        assert (answer.answer, answers_of(answer)) == ("A", ["B"] * 3)


def test_thinking_of_the_explorer_is_not_shown(
    thinking_tiny: str, engines: tuple[Recorded, Recorded]
) -> None:
    thinker = Recorded(
        load_engine(thinking_tiny),
        ["secret</think>It is \\boxed{7}", "never closed \\boxed{9}"],
    )
    answer = loop_of((thinker, engines[1]), k=2).solve(PROBLEMS[0])
    content = engines[1].chats[0][-1]["content"]
    assert "secret" not in content
    assert "Reference 1:\nIt is \\boxed{7}\nEnd" in content
    assert "Reference 2:\n(no answer)\nEnd" in content
    assert answers_of(answer) == ["7", ""]
    assert visible(answer.references[0].text) == "It is \\boxed{7}"


def test_a_trained_synthesizer_brings_its_prompt(tiny: str, other_tiny: str, tmp_path: Path) -> None:
    folder = copytree(other_tiny, tmp_path / "trained")
    own = PromptConfig(synthesizer_template="OWN {problem} {references}", max_prompt_tokens=400)
    (folder / "prompt.yaml").write_text(own.dump())
    engines = (
        Recorded(load_engine(tiny)),
        Recorded(load_engine(str(folder))),
    )
    loop_of(engines).solve(PROBLEMS[0])
    assert engines[1].chats[0][-1]["content"].startswith("OWN What is")
    assert engines[0].chats[0] == Prompter(engines[0].tokenizer, own).explorer(PROBLEMS[0])
    tight = PromptConfig(max_prompt_tokens=40)
    with pytest.raises(InputError, match="raise max_prompt_tokens, lower k, or leave the problem out"):
        loop_of(engines, prompt=tight).solve(PROBLEMS[0])


def test_a_trained_explorer_brings_its_prompt(tiny: str, other_tiny: str, tmp_path: Path) -> None:
    engines = []
    for name, path, template in (
        ("explorer", tiny, "SOLVE {problem}"),
        ("synthesizer", other_tiny, "NEVER {problem}"),
    ):
        folder = copytree(path, tmp_path / name)
        (folder / "prompt.yaml").write_text(PromptConfig(explorer_template=template).dump())
        engines.append(Recorded(load_engine(str(folder))))
    loop_of(engines).solve(PROBLEMS[0])
    assert engines[0].chats[0][-1]["content"].startswith("SOLVE What is")
    given = PromptConfig(explorer_template="GIVEN {problem}")
    engines[0].chats.clear()
    loop_of(engines, prompt=given).solve(PROBLEMS[0])
    assert engines[0].chats[0][-1]["content"].startswith("GIVEN What is")


def test_each_model_is_read_by_its_own_answer_pattern(
    tiny: str, engines: tuple[Recorded, Recorded], tmp_path: Path
) -> None:
    folder = copytree(tiny, tmp_path / "explorer")
    (folder / "prompt.yaml").write_text(PromptConfig(answer_pattern="Result is (.*)").dump())
    explorer = Recorded(load_engine(str(folder)), ["6 and 1. Result is 7"] * 3)
    written = Recorded(engines[1].engine, ["so \\boxed{9}"])
    answer = loop_of((explorer, written)).solve(PROBLEMS[1])
    assert (answers_of(answer), answer.answer) == (["7"] * 3, "9")
    agreed = loop_of((explorer, written), adaptive=Adaptive(first=2, skip_agreement=1.0))
    found = agreed.synthesise(PROBLEMS[1], ["Result is 7", "So Result is 7"])
    assert (answers_of(found), found.answer, found.answered_by) == (["7"] * 2, "7", "agreement")
    assert len(written.chats) == 1


@pytest.mark.parametrize("reason", ["refused", "failed"])
def test_the_vote_answers_where_the_synthesizer_was_not_asked(
    engines: tuple[Recorded, Recorded], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered = [Completion("", 10, 0, reason)]
    monkeypatch.setattr(engines[1], "generate", lambda *_: unanswered)
    answer = loop_of(engines).synthesise(PROBLEMS[0], [r"\boxed{2}", r"\boxed{7}", r"so \boxed{7}"])
    assert (answer.answer, answer.answered_by) == ("7", "vote")
    assert answer.tokens["synthesis"] == 0


@pytest.mark.parametrize(
    ("written", "references", "says"),
    [
        ("so it may well be", [r"\boxed{2}", r"\boxed{7}", r"so \boxed{7}"], ("7", "vote", r"\boxed{7}")),
        ("so it may well be", ["none", "neither"], ("", "synthesizer", "so it may well be")),
        (r"\boxed{2}", [r"\boxed{7}", r"\boxed{7}"], ("2", "synthesizer", r"\boxed{2}")),
    ],
)
def test_the_vote_answers_where_the_synthesis_cannot_be_read(
    engines: tuple[Recorded, Recorded], written: str, references: list[str], says: tuple[str, str, str]
) -> None:
    loop = loop_of((engines[0], Recorded(engines[1].engine, [written])))
    answer = loop.synthesise(PROBLEMS[0], references)
    assert (answer.answer, answer.answered_by, answer.text) == says
    assert answer.tokens["synthesis"] == 5  # it was written, and is paid for


def test_a_round_that_cannot_be_read_leaves_the_population_before_it(
    engines: tuple[Recorded, Recorded],
) -> None:
    explorer = Recorded(engines[0].engine, [r"\boxed{7}", r"\boxed{7}", r"\boxed{2}"])
    rounds = Rounds(rounds=2, population=3, subset=2)
    for texts, says in (
        (["hm"] * 6, ("7", "vote")),
        (["hm"] * 3 + [r"\boxed{9}"] * 3, ("9", "synthesizer")),
        ([r"\boxed{9}"] * 3 + ["hm"] * 3, ("9", "synthesizer")),
    ):
        explorer.texts = [r"\boxed{7}", r"\boxed{7}", r"\boxed{2}"]
        written = Recorded(engines[1].engine, texts)
        answer = loop_of((explorer, written), rounds=rounds).solve(PROBLEMS[0])
        assert (answer.answer, answer.answered_by) == says


def test_long_references_are_cut_to_the_context_of_the_synthesizer(tiny: str) -> None:
    loop = TwoStage(None, tiny, synthesising=SHORT)

    loop.synthesizer = Recorded(loop.synthesizer, [r"\boxed{1}"])
    asked = loop.synthesizer.chats
    loop.synthesise(PROBLEMS[0], [f"{'so ' * 3000}\\boxed{{{n}}}" for n in range(4)])
    prompt = len(loop._prompter.token_ids(asked[0]))
    assert prompt <= context_length(tiny) - SHORT.max_completion_tokens


@pytest.mark.parametrize("rounds", [None, Rounds(population=3, subset=2, rounds=2)])
def test_a_problem_that_does_not_fit_gets_an_error_and_leaves_the_others_alone(
    engines: tuple[Recorded, Recorded], rounds: Rounds | None, caplog: pytest.LogCaptureFixture
) -> None:
    long, prompt = "word " * 300, PromptConfig(max_prompt_tokens=400)
    loop = loop_of(engines, prompt=prompt, rounds=rounds)
    asked = [PROBLEMS[0], long, PROBLEMS[1]]
    answers = loop.solve_all(asked)
    alone = loop_of(engines, prompt=prompt, rounds=rounds).solve_all(PROBLEMS[:2])
    assert [a.problem for a in answers] == asked
    assert [(a.error, a.text, a.answered_by) for a in (answers[0], answers[2])] == [
        ("", a.text, "synthesizer") for a in alone
    ]
    assert "over the budget of 400" in answers[1].error
    assert (answers[1].answered_by, answers[1].tokens["synthesis"]) == ("vote", 0)
    assert "1 of 3 problems do not fit the synthesizer, and have an `error`; the first, 'word" in caplog.text
    with pytest.raises(InputError, match="over the budget of 400"):
        loop.solve(long)
    if not rounds:
        votes = [r"\boxed{7}", r"\boxed{2}", r"so \boxed{7}"]
        (voted,) = loop.synthesise_all([long], [votes])
        assert voted.answer == "7"
        assert voted.error
        with pytest.raises(InputError, match="over the budget of 400"):
            loop.synthesise(long, votes)


def test_where_the_context_sets_the_budget_the_error_says_what_would_help(tiny: str) -> None:
    loop = TwoStage(None, tiny, synthesising=SHORT)
    with pytest.raises(InputError, match="shorten the question, lower k, or lower max_completion_tokens"):
        loop.synthesise("word " * 3000, ["1"])


def test_one_model_for_both_stages_is_loaded_once(tiny: str) -> None:
    loop = TwoStage(tiny, tiny)
    assert loop.explorer is loop.synthesizer


def test_no_problems_are_no_answers(engines: tuple[Recorded, Recorded]) -> None:
    assert loop_of(engines).solve_all([]) == []


def test_adaptive_exploring_stops_where_another_rollout_is_not_worth_it(
    engines: tuple[Recorded, Recorded],
) -> None:
    """The first problem agrees at once; the second is tied at two, and decided at three; the third
    never is.
    """
    agree, tie = "\\boxed{3}", "\\boxed{8}"
    drawn = [
        agree,
        agree,
        "\\boxed{7}",
        tie,
        "\\boxed{1}",
        "\\boxed{2}",
        "\\boxed{7}",
        "\\boxed{4}",
        "\\boxed{5}",
    ]
    scripted = (
        Recorded(engines[0].engine, drawn),
        Recorded(engines[1].engine, ["so \\boxed{7}", "so \\boxed{11}"]),
    )
    loop = loop_of(scripted, k=4, adaptive=Adaptive(price=0.32, first=2, skip_agreement=1.0))
    answers = loop.solve_all(PROBLEMS)
    assert [answers_of(a) for a in answers] == [["3", "3"], ["7", "8", "7"], ["1", "2", "4", "5"]]
    assert [a.answer for a in answers] == ["3", "7", "11"]
    assert answers[0].tokens == {
        "explorer_prompt": 10,
        "references": 10,
        "synthesizer_prompt": 0,
        "synthesis": 0,
    }
    assert answers[1].tokens["references"] == 15
    assert len(scripted[1].chats) == 2


def test_given_references_that_all_agree_need_no_synthesis(engines: tuple[Recorded, Recorded]) -> None:
    written = Recorded(engines[1].engine, ["so \\boxed{9}"])
    loop = loop_of((engines[0], written), k=2, adaptive=Adaptive(first=2, skip_agreement=1.0))
    agreed, contested = ["a \\boxed{3}", "b \\boxed{3.0}"], ["a \\boxed{3}", "none"]
    answers = loop.synthesise_all(PROBLEMS[:2], [agreed, contested])
    assert [(answer.answer, answer.tokens["synthesis"] > 0) for answer in answers] == [
        ("3", False),
        ("9", True),
    ]
    assert len(written.chats) == 1


@pytest.mark.parametrize("own", [True, False])
def test_adaptive_exploring_without_votes_is_refused_before_it_samples(
    engines: tuple[Recorded, Recorded], own: bool
) -> None:
    """The verifier is the loop's, or that of a problem."""
    loop = loop_of(engines, adaptive=Adaptive(), verifier=None if own else "python_tests")
    with pytest.raises(InputError, match="answers of python_tests have none"):
        loop.solve_all([PROBLEMS[0], Problem("p", PROBLEMS[1], "", "python_tests")])
    assert engines[0].chats == []


def test_adaptive_reads_the_rollouts_that_a_fixed_k_would_read(engines: tuple[Recorded, Recorded]) -> None:
    fixed = loop_of(engines, k=3, seed=2).solve_all(PROBLEMS)
    never = loop_of(engines, k=3, seed=2, adaptive=Adaptive(price=0.0, first=1)).solve_all(PROBLEMS)
    assert [a.references for a in never] == [a.references for a in fixed]
    assert [a.text for a in never] == [a.text for a in fixed]


def test_rounds_aggregate_and_vote(engines: tuple[Recorded, Recorded]) -> None:
    drawn = [f"\\boxed{{{n}}}" for n in (1, 2, 3)]
    written = [f"first {n} \\boxed{{{n}}}" for n in (4, 5, 6)] + [
        f"second {n} \\boxed{{{n}}}" for n in (7, 8, 8)
    ]
    scripted = Recorded(engines[0].engine, drawn), Recorded(engines[1].engine, written)
    answer = loop_of(scripted, rounds=Rounds(population=3, subset=2, rounds=2)).solve(PROBLEMS[0])
    assert (answer.answer, answer.text) == ("8", "second 8 \\boxed{8}")
    chats = [chat[-1]["content"] for chat in scripted[1].chats]
    assert all("Reference 2:" in chat and "Reference 3:" not in chat for chat in chats)
    assert all("first" not in chat for chat in chats[:3])
    assert all(chat.count("first") == 2 for chat in chats[3:])
    assert answer.tokens == {
        "explorer_prompt": 10,
        "references": 15,
        "synthesizer_prompt": 60,
        "synthesis": 30,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"adaptive": Adaptive(first=4)},
        {"adaptive": Adaptive(), "rounds": Rounds()},
    ],
)
def test_options_that_exclude_each_other_are_refused(
    engines: tuple[Recorded, Recorded], options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="adaptive: expected no rounds next to it"):
        loop_of(engines, **options)
    for wrong in (
        lambda: Adaptive(price=2),
        lambda: Adaptive(first=0),
        lambda: Rounds(2, 3),
        lambda: Rounds(rounds=0),
    ):
        with pytest.raises(InputError, match="out of range"):
            wrong()
