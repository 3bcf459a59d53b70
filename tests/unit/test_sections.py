"""A synthesis in sections: what is read of it, and which mistakes of a prompt are named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.sections import Parts, answer_in, parts_of

ROOT = Path(__file__).parents[2]
PROMPT = PromptConfig.load(ROOT / "recipes/prompts/prompt-judge.yaml")
HEADINGS = PROMPT.sections
SOLUTION, VERDICTS, ANSWER = (HEADINGS[name] for name in ("solution", "verdicts", "answer"))
LINES = st.sampled_from(
    [
        *(f"## {heading}" for heading in HEADINGS.values()),
        *(f"**{heading}:** so" for heading in HEADINGS.values()),
        *(f"{heading}:" for heading in HEADINGS.values()),
        *(f"Reference {n}: {word}, as it adds." for n in (1, 2, 3, 12) for word in ("right", "wrong", "odd")),
        *(rf"So it is \boxed{{{n}}}." for n in (4, 5)),
        *("<think>", "</think>", "", "####", "Problem: another"),
    ]
)
TEXTS = st.one_of(st.text(max_size=400), st.lists(LINES, max_size=20).map("\n".join))


def written(solution: str = "5", verdicts: str = "Reference 1: right", answer: str = "5") -> str:
    """A synthesis as the prompt asks for it."""
    own = f"## {SOLUTION}\n2 + 3 is \\boxed{{{solution}}}."
    return f"{own}\n\n## {VERDICTS}\n{verdicts}\n\n## {ANSWER}\n\\boxed{{{answer}}}"


@given(TEXTS, st.integers(0, 5))
def test_any_text_is_read(text: str, references: int) -> None:
    """Each part is in the text, a cut text has no more sections, and the answer is never the solution's."""
    parts = parts_of(text, HEADINGS)
    if parts is None:
        assert answer_in(text, HEADINGS) == text
        return
    assert all(part in text for part in (parts.solution, parts.verdicts, parts.answer))
    assert len(parts.judged(references)) == references
    assert answer_in(text, HEADINGS) == parts.answer
    if parts.answer:
        assert text.rindex(parts.answer) > text.lower().index(ANSWER.lower())


@given(st.integers(0, 200), st.sampled_from(["4", "5"]))
def test_a_cut_text_has_the_sections_before_the_cut(at: int, answer: str) -> None:
    whole = written(solution="7", answer=answer)
    parts = PROMPT.parts_of(cut := whole[:at]) or Parts()
    if f"## {ANSWER}\n" not in cut:
        assert not parts.answer
    assert "7" not in PROMPT.judged_text(cut)
    assert parts.are_whole(1) == (len(cut) > whole.index(f"## {ANSWER}") + len(f"## {ANSWER}\n"))


@given(st.permutations([1, 2, 3, 4]), st.lists(st.booleans(), min_size=4, max_size=4))
def test_verdicts_in_any_order_are_those_of_their_references(order: list[int], said: list[bool]) -> None:
    lines = "\n".join(f"Reference {n}: {'right' if said[n - 1] else 'wrong'}, so." for n in order)
    assert Parts(verdicts=lines).judged(4) == said
    assert Parts(verdicts=lines).judged(2) == said[:2]  # more verdicts than references
    assert Parts(verdicts=lines).judged(6) == [*said, None, None]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Reference 1: right, because it adds.", True),
        ("reference 1 is wrong", False),
        ("- **Reference 1:** Incorrect. It forgets 3.", False),
        ("1. Reference 1 - **right**", True),
        ("### Reference 1\nwrong", None),
        ("Reference #1 (correct)", True),
        ("Reference 1's answer is not right.", False),
        ("Reference 1: not wrong", True),
        ("Reference 1: Verdict: wrong", False),
        ("Reference 1: right or wrong, because", None),
        ("Reference 1: right/wrong", None),
        ("Reference 1: rightly adds", None),
        ("Reference 1: its first step is right", None),
        ("Reference 1: right. Reference 1: wrong", None),
        ("Reference 1: right\nReference 1 is correct", True),
        ("Reference 11: right", None),
        ("Preference 1: right", None),
    ],
)
def test_what_a_verdict_is(line: str, expected: bool | None) -> None:
    assert Parts(verdicts=line).judged(1) == [expected]


@pytest.mark.parametrize(
    ("line", "is_heading"),
    [
        (f"## {ANSWER}", True),
        (f"{ANSWER.upper()}", True),
        (f"{ANSWER}:", True),
        (f"**{ANSWER}**", True),
        (f"### 3. {ANSWER}: it is", True),
        (f"# **{ANSWER}** it is", True),
        (f"3. {ANSWER}", True),
        (f"{ANSWER}: it is", False),
        (f"My {ANSWER}", False),
        (f"## {ANSWER}s", False),
    ],
)
def test_what_a_heading_is(line: str, is_heading: bool) -> None:
    found = parts_of(f"{SOLUTION}\na\n{line}\n\\boxed{{5}}", HEADINGS)
    assert bool(found and found.answer) is is_heading


def test_of_repeated_sections_one_counts() -> None:
    """The first solution and verdicts, and the last answer: naming two of anything never pays."""
    text = f"{written('4', 'Reference 1: right', '4')}\n{written('5', 'Reference 1: wrong', '5')}"
    parts = PROMPT.parts_of(text)
    assert parts
    assert r"\boxed{4}" in parts.solution
    assert parts.judged(1) == [True]
    assert parts.answer == r"\boxed{5}"
    inside = f"## {SOLUTION}\nSo\n**{ANSWER}:** \\boxed{{7}}\n\n## {VERDICTS}\nReference 1: right"
    assert PROMPT.judged_text(inside) == ""  # it stands before the verdicts: the end of the solution


def test_the_answer_is_read_from_its_section_alone() -> None:
    assert PROMPT.judged_text(written("4", answer="5")) == r"\boxed{5}"
    assert PROMPT.judged_text(f"<think>{written('1')}</think>{written('4')}") == r"\boxed{5}"
    assert PROMPT.judged_text(f"<think>{written('1')}") == ""
    assert PROMPT.judged_text(f"## {SOLUTION}\n\\boxed{{5}}") == ""
    assert PROMPT.judged_text(r"A rollout: \boxed{5}") == r"A rollout: \boxed{5}"
    tagged = PromptConfig(
        sections=HEADINGS, synthesizer_template=PROMPT.synthesizer_template, answer_pattern="Answer: (.*)"
    )
    text = f"{SOLUTION}\nAnswer: 4\n{VERDICTS}\nReference 1: right\n{ANSWER}\nAnswer: 5"
    assert tagged.judged_text(text) == r"\boxed{5}"
    assert tagged.parts_of(text) == Parts(r"\boxed{4}", "Reference 1: right", r"\boxed{5}")


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ("{solution: My own solution}", "expected {solution: My own solution, verdicts"),
        ("{solution: a, verdicts: b, answer: 3}", "expected {solution"),
        ("{solution: Own, verdicts: Verdicts, answer: Final answer}", "has no line 'Own'"),
        ("{solution: My own solution, verdicts: Verdicts, answer: Verdicts}", "are the same heading"),
        ("{solution: '##', verdicts: Verdicts, answer: Final answer}", "is not a heading"),
        ("{solution: Reason step by step, verdicts: Verdicts, answer: Final answer}", "has no line"),
        ("[a, b]", "expected an object"),
    ],
)
def test_mistakes_of_sections_are_named(sections: str, says: str, tmp_path: Path) -> None:
    text = (ROOT / "recipes/prompts/prompt-judge.yaml").read_text()
    head, _, tail = text.partition("sections:\n")
    path = tmp_path / "prompt.yaml"
    path.write_text(f"{head}sections: {sections}\n{tail[tail.index('explorer_template') :]}")
    with pytest.raises(InputError) as error:
        PromptConfig.load(path)
    assert says in str(error.value)


def test_a_heading_of_explorers_is_refused() -> None:
    with pytest.raises(InputError, match="explorer_template also has 'My own solution'"):
        PromptConfig(
            sections=HEADINGS,
            synthesizer_template=PROMPT.synthesizer_template,
            explorer_template="{problem}\n## My own solution",
        )


def test_a_prompt_without_sections_is_written_as_before(tmp_path: Path) -> None:
    assert "sections" not in PromptConfig().dump()
    (tmp_path / "prompt.yaml").write_text(PROMPT.dump())
    assert PromptConfig.load(tmp_path / "prompt.yaml") == PROMPT
