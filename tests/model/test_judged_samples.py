"""Completions of an engine, judged: what is asked, and what comes back for whom."""

from typing import Any

import pytest
from conftest import Scripted

from a2r_train.engines import EngineArguments, Sampling, load_engine
from a2r_train.engines.judged import judged_samples
from a2r_train.prompts import Prompter
from a2r_train.records import Problem


@pytest.mark.parametrize(("temperature", "asked"), [(0.0, 2), (1.0, 6)])
def test_a_greedy_answer_to_equal_chats_is_made_once(tiny: str, temperature: float, asked: int) -> None:
    engine = Scripted(
        load_engine(tiny, EngineArguments(engine="transformers")),
        lambda text: r"\boxed{5}" if "5 or 6" in text else r"\boxed{6}",
    )
    prompter: Any = Prompter(engine.tokenizer)
    problems = [Problem("a", "5 or 6?", "5"), Problem("b", "6 or 5?", "5"), Problem("c", "5 or 6?", "6")]
    chats = {problem.id: prompter.explorer(problem.problem) for problem in problems}

    made = judged_samples(engine, prompter, problems, chats, Sampling(temperature), 2, seed=0)

    assert len(engine.asked) == asked
    assert [(identity, sample) for identity, sample, _ in made] == [
        (p.id, s) for p in problems for s in (0, 1)
    ]
    assert [one.answer for _, _, one in made] == ["5", "5", "6", "6", "5", "5"]
    assert [one.verdict for _, _, one in made] == ["correct", "correct", *["incorrect"] * 4]
    assert len({one.seed for _, _, one in made}) == len(made)  # each keeps its own
