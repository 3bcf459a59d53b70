"""The names of the rows that code asks for, and what a name says of its row."""

from __future__ import annotations

from collections.abc import Collection

BASE, ALONE = "synthesizer/base", "synthesizer/alone"
SFT, GRPO, SFT_GRPO = "synthesizer/sft", "synthesizer/grpo", "synthesizer/sft+grpo"
TRAINED = (SFT_GRPO, GRPO, SFT)  # the first one present is "the trained one"
CONTROL = "synthesizer/no_references"
VOTED_CONTROL = f"{CONTROL}+vote"  # with `skip_agreement`, it answers only where too few agree
FALLBACK = "+fallback"  # ends the name of a row in which the vote answers what cannot be read
GREEDY = "explorer/greedy"
EQUAL_TOKENS, EQUAL_COST = "maj@equal_tokens", "maj@equal_cost"
RANDOM = "reference/random"  # stands in for votes where answers have none


def split(name: str) -> tuple[str, str]:
    """A row's name and its sampling suffix, "" for greedy."""
    return (name.removesuffix("@T"), "@T") if name.endswith("@T") else (name, "")


def is_vote(name: str) -> bool:
    """Whether the row is a majority vote, of the references or of an equal budget."""
    return name.startswith("maj@")


def is_reference_vote(name: str) -> bool:
    """Whether the row is the majority vote of the references: `maj@4`, or `maj@k` for several sizes."""
    return is_vote(name) and name not in (EQUAL_TOKENS, EQUAL_COST)


def is_system(name: str, skipping: Collection[str]) -> bool:
    """Whether the vote answers bundles of the row that agree; `skipping` are the synthesizers'."""
    row, suffix = split(name)
    model = row.removesuffix(FALLBACK)
    return (
        model + suffix in skipping or row == VOTED_CONTROL or (bool(skipping) and row == CONTROL + FALLBACK)
    )
