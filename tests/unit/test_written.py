"""The preflight writes answers as the prompt asks for them."""

import pytest

from a2r_train.prompts import PromptConfig
from a2r_train.train.written import as_asked


@pytest.mark.parametrize(
    ("pattern", "answer", "text"),
    [
        ("", "5", r"\boxed{5}"),
        ("Answer: (.*)", "5", "Answer: 5"),
        ("<answer>(.*?)</answer>", r"\frac{1}{2}", r"<answer>\frac{1}{2}</answer>"),
        (r"\*\*Answer\*\*:\s*(.+)", "5", "**Answer**: 5"),
        ("^Final: (.*)$", "5", "Final: 5"),
        (r"\[\[([A-E])\]\]", "B", "[[B]]"),
        (r"answer(?: is)?: (.*)", "5", "answer: 5"),
        (r"Answer:\s*\(?([A-E])\)?", "B", "Answer: B"),
        (r"#### (-?(?:\d|,)+)", "1,234", "#### 1,234"),
    ],
)
def test_the_answer_stands_where_the_prompt_reads_it(pattern: str, answer: str, text: str) -> None:
    prompt = PromptConfig(answer_pattern=pattern)
    assert as_asked(prompt, answer, "math") == text
    assert prompt.judged_text(text) == rf"\boxed{{{answer}}}"


@pytest.mark.parametrize(("pattern", "answer"), [(r"Answer: (\d+)", "x+1"), ("[Aa]nswer: (.*)", "5")])
def test_nothing_is_written_that_the_prompt_would_not_read(pattern: str, answer: str) -> None:
    assert as_asked(PromptConfig(answer_pattern=pattern), answer, "math") is None
