"""Prompt lengths of many bundles at once are those of whole prompts, one by one."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from bench_bundle import texts
from conftest import save_tiny

from a2r_train.data import lengths
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.lengths import PromptLengths, count_all
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Reference
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import load_bundles, measured_prompts

TEXTS = (
    "So 3 + 4 = 7.", "<think>no</think> It is\n\n\\boxed{12}", "", " 84 ", "End of reference 1. <|im_end|>",
    "the the the answer of\n", "Ünïcödé — 5²\n\n", "\n\nLeft.\n" * 9,
)  # fmt: skip


def asked(count: int, k: int = 3) -> list[lengths.Asked]:
    rng = random.Random(0)
    return [
        (
            rng.choice(("How many?", "Problem: 5\n", "x")) * rng.randrange(1, 4),
            [Reference(rng.choice(TEXTS) + str(rng.randrange(99)), "5") for _ in range(k)],
        )
        for _ in range(count)
    ]


def whole(prompter: Prompter, some: list[lengths.Asked]) -> list[tuple[int, int]]:
    rendered = [prompter.synthesizer(*one) for one in some]
    return [(one.prompt_tokens, one.cut_references) for one in rendered]


@pytest.mark.parametrize(
    "config",
    [
        PromptConfig(),
        PromptConfig(reference="full", reference_template="<{number}> {text}", reference_separator=" "),
        PromptConfig(reference="answer", system="Be brief."),
        PromptConfig(max_reference_tokens=20),
        PromptConfig(synthesizer_template="{references}\n{problem} and again {problem}"),
        PromptConfig(max_prompt_tokens=420, max_reference_tokens=60),
    ],
)
def test_lengths_are_those_of_whole_prompts(config: PromptConfig, tiny: str) -> None:
    prompter, some = Prompter(load_tokenizer(tiny), config), asked(120)
    measured = PromptLengths(prompter)
    assert [(one.tokens, one.cut_references) for one in measured.of(some)] == whole(prompter, some)
    assert measured.in_parts
    varied = [one for k in (1, 2, 5) for one in asked(20, k)]
    fitting = [one for one in varied if config.max_prompt_tokens > 1000 or len(one[1]) < 3]
    assert [(o.tokens, o.cut_references) for o in measured.of(fitting)] == whole(prompter, fitting)


def test_of_a_long_reference_the_beginning_alone_is_tokenised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """data/tiny merges words across spaces, so a cut has an effect on some tokens behind it."""
    prompter = Prompter(load_tokenizer("data/tiny/synthesizer"), PromptConfig(max_reference_tokens=300))
    rng = random.Random(0)
    some: list[lengths.Asked] = [
        ("How many?", [Reference(texts(rng, i, 1500), "5") for _ in range(4)]) for i in range(100)
    ]
    measured, counted = PromptLengths(prompter), list[str]()
    count = lengths._encoded
    monkeypatch.setattr(lengths, "_encoded", lambda t, of: counted.extend(of) or count(t, of))
    found = measured.of(some)
    assert measured.in_parts
    assert [(one.tokens, one.cut_references) for one in found] == whole(prompter, some)
    assert sum("... " in text[:4] and len(text) > 600 for text in counted) < 40  # of 400, and some are tried


def test_a_prompt_that_does_not_fit_is_named(tiny: str) -> None:
    measured = PromptLengths(Prompter(load_tokenizer(tiny), PromptConfig(max_prompt_tokens=60)))
    with pytest.raises(InputError, match="over the budget of 60"):
        measured.of(asked(2))


def test_recorded_counts_are_used_where_they_are_the_tokenizers(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = Prompter(load_tokenizer(tiny), PromptConfig(reference="full"))
    texts = [f"{'the answer of ' * 5}{i}." for i in range(90)]
    sizes = count_all(prompter.tokenizer, texts)
    references = [Reference(text, "5", tokens=n + 1) for text, n in zip(texts, sizes, strict=True)]
    some: list[lengths.Asked] = [("x", references[i : i + 3]) for i in range(0, 90, 3)]
    measured = PromptLengths(prompter)
    assert [one.tokens for one in measured.of(some)] == [n for n, _ in whole(prompter, some)]
    assert measured.recorded
    counted: list[str] = []
    monkeypatch.setattr(
        lengths, "count_all", lambda tokenizer, t: (counted.extend(t), count_all(tokenizer, t))[1]
    )
    measured.of(some)
    assert not set(counted) & set(texts)
    others: list[lengths.Asked] = [(p, [replace(r, tokens=r.tokens * 2) for r in some]) for p, some in some]
    of_another = PromptLengths(prompter)
    assert [one.tokens for one in of_another.of(others)] == [n for n, _ in whole(prompter, others)]
    assert of_another.recorded is False


def test_a_template_that_changes_the_text_is_measured_whole(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] | replace('the', 'THE ANSWER') | upper }}{% endfor %}>"
    prompter = Prompter(load_tokenizer(save_tiny(tmp_path / "own", 0, template)))
    measured, some = PromptLengths(prompter), asked(30)
    assert [one.tokens for one in measured.of(some)] == [n for n, _ in whole(prompter, some)]
    assert measured.in_parts is False


def test_the_longest_prompt_of_a_range_of_k_is_what_the_trainer_plans_with(
    problems: str, rollouts: str, tiny: str, tmp_path: Path
) -> None:
    config = BundleConfig(rollouts, str(tmp_path / "out"), problems, k=6, k_min=2, tokenizer=tiny)
    folder = bundle(replace(config, bundles_per_problem=4))
    loaded = load_bundles(BundleArguments(str(folder / "train.jsonl")), ModelArguments(tiny))
    longest = max(loaded.rows, key=lambda row: row.prompt_tokens)
    assert len({len(row.bundle.references) for row in loaded.rows}) > 2
    assert len(longest.bundle.references) == 6
    measured = measured_prompts(str(folder / "train.jsonl"), tiny, loaded.prompter)
    assert measured is not None
    assert measured["longest"] == longest.prompt_tokens == loaded.longest_prompt
    assert "| 6 | " in (folder / "README.md").read_text()
