"""Bundles of the same problems over other references: fewer, more, drafts, or the members of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from a2r_train.evaluate.rows.row import others
from a2r_train.records import CORRECT, Bundle, Rollout, Synthesis
from a2r_train.verify import majority


class Member(NamedTuple):
    """One reference."""

    text: str
    answer: str
    verdict: str
    tokens: int


def member(made: Rollout | Synthesis) -> Member:
    return Member(made.text, made.answer, made.verdict, made.completion_tokens)


def members_of(bundle: Bundle) -> list[Member]:
    columns = (
        bundle.references,
        bundle.reference_answers,
        bundle.reference_verdicts,
        bundle.reference_tokens,
    )
    return [Member(*values) for values in zip(*columns, strict=True)]


def pool(bundle: Bundle, rollouts: Sequence[Rollout], n: int) -> list[Member]:
    """The references of a bundle, then other rollouts of its problem; n at the most."""
    return [*members_of(bundle), *(member(r) for r in others(bundle, rollouts))][:n]


def rebundle(bundle: Bundle, members: Sequence[Member], name: str = "") -> Bundle:
    """The same problem over other references, in the given order; `name` sets its id apart."""
    groups = majority([m.answer for m in members], bundle.verifier).groups
    first = members[groups[0][0] if groups else 0]
    return replace(
        bundle,
        id=f"{bundle.id}/{name}" if name else bundle.id,
        references=[m.text for m in members],
        reference_answers=[m.answer for m in members],
        reference_verdicts=[m.verdict for m in members],
        reference_tokens=[m.tokens for m in members],
        n_correct=sum(m.verdict == CORRECT for m in members),
        majority_answer=first.answer,
        majority_verdict=first.verdict,
    )
