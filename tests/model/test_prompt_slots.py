"""The one renderer with a tokenizer: nothing leaves its slot, caps and budget."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2r_train.errors import InputError
from a2r_train.evaluate.templates import CONSISTENCY, REFINE, SELECT
from a2r_train.models import load_tokenizer
from a2r_train.prompts import PromptConfig, Prompter, visible
from a2r_train.records import Reference

NASTY = [
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<think>",
        "</think>",
        "<|im_",
        "end|>",
        "start|>",
        "\n",
        " ",
        "...",
    ),
    *(
        "Reference 1:",
        "Reference 12:",
        "End of reference 1.",
        "End of ",
        "reference 2.",
        "{text}",
        "{problem}",
        "{",
        "}",
    ),
    *("<|im_<|im_end|>end|>", "</th</think>ink>", "assistant\n", "é", "\u2028", "12"),
]
texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=8), max_size=12).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tiny: str) -> Any:
    return load_tokenizer(tiny)


def specials(prompter: Prompter, chat: Any) -> Counter[int]:
    special = set(prompter.tokenizer.all_special_ids)
    return Counter(token for token in prompter.token_ids(chat) if token in special)


@given(
    problem=texts,
    references=st.lists(texts, min_size=1, max_size=3),
    shown=st.sampled_from(["full", "solution", "answer"]),
)
@settings(max_examples=150, deadline=None)
def test_no_text_leaves_its_slot(tokenizer: Any, problem: str, references: list[str], shown: Any) -> None:
    prompter = Prompter(tokenizer, PromptConfig(reference=shown))
    plain = prompter.synthesizer("x", [Reference("y", "y")] * len(references))
    rendered = prompter.synthesizer(problem, [Reference(text, text) for text in references])
    assert specials(prompter, rendered.chat) == specials(prompter, plain.chat)
    text = prompter.text(rendered.chat)
    for number in range(1, 20):
        expected = number <= len(references)
        assert text.count(f"Reference {number}:") == expected
        assert text.count(f"End of reference {number}.") == expected
    assert "<think>" not in text
    assert "</think>" not in text
    assert specials(prompter, prompter.explorer(problem)) == specials(prompter, prompter.explorer("x"))


@given(references=st.lists(texts, min_size=1, max_size=3), cap=st.integers(8, 30))
@settings(max_examples=80, deadline=None)
def test_cut_references_stay_in_their_slots_and_near_the_cap(
    tokenizer: Any, references: list[str], cap: int
) -> None:
    references = [text * 4 for text in references]
    config = PromptConfig(reference="full", max_reference_tokens=cap)
    prompter = Prompter(tokenizer, config)
    rendered = prompter.synthesizer("x", [Reference(text, text) for text in references])
    plain = prompter.synthesizer("x", [Reference("")] * len(references))
    assert specials(prompter, rendered.chat) == specials(prompter, plain.chat)
    assert rendered.prompt_tokens == len(prompter.token_ids(rendered.chat))
    # A cut may fall inside a character (one replacement sign is 3 bytes) and inside a marker, which is broken
    # once more.
    assert rendered.prompt_tokens <= plain.prompt_tokens + len(references) * (cap + 4 + 3 * 3 + cap // 2)


def test_a_long_reference_keeps_its_end(tokenizer: Any) -> None:
    prompter = Prompter(tokenizer, PromptConfig(max_reference_tokens=20))
    rendered = prompter.synthesizer("x", [Reference("z" * 500 + " so \\boxed{7}", "7"), Reference("short")])
    assert rendered.cut_references == 1
    (message,) = rendered.chat
    assert "so \\boxed{7}\nEnd of reference 1." in message["content"]
    assert "\nshort\n" in message["content"]
    assert prompter.count(
        message["content"].partition("Reference 1:\n")[2].partition("\nEnd")[0]
    ) <= 20 + prompter.count("... ")


@given(lengths=st.lists(st.integers(0, 400), min_size=1, max_size=5), budget=st.integers(380, 900))
@settings(max_examples=60, deadline=None)
def test_a_prompt_fits_the_budget_or_is_refused(tokenizer: Any, lengths: list[int], budget: int) -> None:
    prompter = Prompter(tokenizer, PromptConfig(max_prompt_tokens=budget, min_reference_tokens=16))
    references = [Reference("7 " * n, "7 " * n) for n in lengths]
    smallest = Prompter(tokenizer, PromptConfig(max_reference_tokens=16)).synthesizer("x", references)
    if smallest.prompt_tokens > budget:
        with pytest.raises(InputError, match="raise max_prompt_tokens, lower k, or leave the problem out"):
            prompter.synthesizer("x", references)
    else:
        rendered = prompter.synthesizer("x", references)
        assert rendered.prompt_tokens <= budget
        whole = Prompter(tokenizer).synthesizer("x", references).prompt_tokens
        assert (rendered.cut_references == 0) == (whole <= budget)


def test_a_reference_is_shown_as_the_recipe_says(tokenizer: Any) -> None:
    text = "<think>hmm</think>It is \\boxed{7}."
    expected = {
        "answer": "7",
        "solution": "It is \\boxed{7}.",
        "full": "< think>hmm< /think>It is \\boxed{7}.",
    }
    for shown, inside in expected.items():
        prompter = Prompter(tokenizer, PromptConfig(reference=shown))  # type: ignore[arg-type]
        (message,) = prompter.synthesizer("x", [Reference(text, "7")]).chat
        assert f"Reference 1:\n{inside}\nEnd of reference 1." in message["content"]


def test_nothing_to_show_is_said(tokenizer: Any) -> None:
    (message,) = Prompter(tokenizer).synthesizer("x", [Reference("<think>never closed")]).chat
    assert "Reference 1:\n(no answer)\nEnd" in message["content"]


def test_references_keep_their_order_and_the_system_prompt_comes_first(tokenizer: Any) -> None:
    references = [Reference("bb"), Reference("aa")]
    system, user = Prompter(tokenizer, PromptConfig(system="Be brief.")).synthesizer("x", references).chat
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"].index("bb") < user["content"].index("aa")


def test_thinking_that_the_template_opens_is_put_back(thinking_tiny: str, tokenizer: Any) -> None:
    thinking = Prompter(load_tokenizer(thinking_tiny))
    assert thinking.opens_thinking
    assert visible(thinking.complete("hmm</think>7")) == "7"
    assert visible(thinking.complete("hmm 7")) == ""
    assert Prompter(tokenizer).complete("7") == "7"


def test_a_tokenizer_without_chat_template_is_refused(tiny: str) -> None:
    bare = load_tokenizer(tiny)
    bare.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        Prompter(bare)


@pytest.mark.parametrize("template", [CONSISTENCY, SELECT, REFINE])
def test_another_template_keeps_the_slots_and_takes_no_room_from_the_references(
    tokenizer: Any, template: str
) -> None:
    short = PromptConfig(synthesizer_template="{problem} {references}", max_prompt_tokens=400)
    prompter = Prompter(tokenizer, short)
    references = [Reference("so it is <|im_end|> 12 " * 8, "12"), Reference("no \\boxed{3}", "3")]
    usual = prompter.synthesizer("What is 1?", references)
    other = prompter.synthesizer("What is 1?", references, template)
    assert usual.cut_references == other.cut_references == 0
    assert other.prompt_tokens > 400 > usual.prompt_tokens
    assert other.chat[-1]["content"].startswith(template.partition("{problem}")[0])
    assert other.chat[-1]["content"].endswith("in \\boxed{}.")
    assert specials(prompter, other.chat) == specials(prompter, usual.chat)
    with pytest.raises(InputError, match="over the budget"):
        prompter.synthesizer("What is 1? " * 200, references, template)
