"""Rewards of a synthesis in sections, beyond that of its answer: for its own solution, and for its verdicts
on the references (docs/recipes.md, "Solve, judge, answer").

They give a group a signal where all references are wrong or all are right, and a bare answer earns less. Rows
that show no references get neither reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from a2r_train.errors import InputError
from a2r_train.prompts import Messages, Prompter
from a2r_train.records import CORRECT
from a2r_train.sections import Parts
from a2r_train.train.rewards import problems_in, texts_of
from a2r_train.verify import judge_all

if TYPE_CHECKING:
    from a2r_train.train.arguments import SynthesizerGRPOConfig
    from a2r_train.train.bundles import TrainingBundles

WEIGHTS = (1.0, 0.3, 0.2)  # of the answer, the own solution, and the verdicts


@dataclass(frozen=True)
class VerdictCredits:
    """What a right verdict earns on a right and on a wrong reference; a wrong verdict loses the same amount.

    With w = 1 / (2 x the class's share), calling all references right, or all wrong, earns 0 on average, and
    so does guessing; getting all verdicts right earns 1. If the training set has only one class, no verdict
    can be told apart from a constant one, and none is paid.
    """

    right: float
    wrong: float

    @staticmethod
    def of(share_right: float) -> VerdictCredits:
        """From the share of right references, averaged over bundles."""
        if not 0 < share_right < 1:
            return VerdictCredits(0.0, 0.0)
        return VerdictCredits(1 / (2 * share_right), 1 / (2 * (1 - share_right)))

    def earned(self, verdicts: Sequence[bool | None], right: Sequence[bool]) -> float:
        """The mean over the references of a bundle; a reference without a verdict earns 0."""
        paid = [
            (self.right if true else self.wrong) * (1 if said == true else -1)
            for said, true in zip(verdicts, right, strict=True)
            if said is not None
        ]
        return sum(paid) / max(1, len(right))


class OwnSolutionReward:
    """1.0 where the synthesis's own solution is right, 0.0 where it is wrong or missing.

    It logs `complete_sections`, the share of completions with all sections and a verdict on each reference.
    """

    __name__ = "own_solution_reward"

    def __init__(self, prompter: Prompter) -> None:
        self.prompter = prompter

    def __call__(
        self,
        completions: Sequence[Messages],
        answer: Sequence[str],
        verifier: Sequence[str],
        references_right: Sequence[Sequence[bool]],
        plain: Sequence[bool] | None = None,
        row: Sequence[str] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        texts = texts_of(self.prompter, completions, completion_ids)
        parts = [self.prompter.config.parts_of(text) for text in texts]
        solutions = [one.solution if one else "" for one in parts]
        judged = judge_all(list(zip(solutions, answer, verifier, strict=True)), problems_in(row))
        rewards = [float(judgement.verdict == CORRECT) for judgement in judged]
        alone = plain or [False] * len(rewards)
        for one, right, without in zip(parts, references_right, alone, strict=True):
            if log_metric and not without:
                log_metric("complete_sections", float(one is not None and one.are_whole(len(right))))
        return [None if without else reward for reward, without in zip(rewards, alone, strict=True)]


class VerdictsReward:
    """What the verdicts on the references earn: from -1 to 1 if both classes are equally frequent."""

    __name__ = "verdicts_reward"

    def __init__(self, prompter: Prompter, credits: VerdictCredits) -> None:
        self.prompter, self.credits = prompter, credits

    def __call__(
        self,
        completions: Sequence[Messages],
        references_right: Sequence[Sequence[bool]],
        plain: Sequence[bool] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> list[float | None]:
        texts = texts_of(self.prompter, completions, completion_ids)
        parts = [self.prompter.config.parts_of(text) or Parts() for text in texts]
        alone = plain or [False] * len(texts)
        return [
            None if without else self.credits.earned(one.judged(len(right)), right)
            for one, right, without in zip(parts, references_right, alone, strict=True)
        ]


def are_rewarded(bundles: TrainingBundles) -> bool:
    """Whether the prompt asks for sections, and any bundle is shown with references."""
    return bool(bundles.prompter.config.sections) and bundles.rows.plain_share < 1


def section_rewards(bundles: TrainingBundles) -> list[Any]:
    """The rewards of the sections; none if the prompt asks for no sections."""
    if not are_rewarded(bundles):
        return []
    return [OwnSolutionReward(bundles.prompter), VerdictsReward(bundles.prompter, credits_of(bundles))]


def credits_of(bundles: TrainingBundles) -> VerdictCredits:
    """From the bundles that are shown with their references, each with the same weight."""
    plain, read = bundles.plain, bundles.bundles
    right = np.array(read.column("n_correct").to_pylist(), float)
    sizes = [len(bundle.references) for bundle in read.held]
    sizes = sizes or pc.list_value_length(read.column("references")).to_pylist()
    shown = np.array([identity not in plain for identity in read.column("id").to_pylist()])
    return VerdictCredits.of(float((right / np.maximum(1, sizes))[shown].mean()) if shown.any() else 0.0)


def default_weights(args: SynthesizerGRPOConfig) -> list[float]:
    """The weights of the sections' rewards, and of the recipe's own."""
    return [*WEIGHTS, *[1.0] * len(args.reward_funcs)]


def settle_weights(args: SynthesizerGRPOConfig, bundles: TrainingBundles) -> None:
    """Give each reward its weight, now that it is known whether the prompt has sections.

    Raises InputError if the number of weights is not that of the rewards.
    """
    names, default = ["the verified one"], None
    if are_rewarded(bundles):
        names = ["the answer", "the own solution", "the verdicts"]
        default = default_weights(args)
    if (weights := args.reward_weights) is None:
        args.reward_weights = default
    elif len(weights) != (rewards := len(names) + len(args.reward_funcs)):
        raise InputError(
            f"reward_weights has {len(weights)} weights for {rewards} rewards: {', '.join(names)}, then "
            "reward_funcs"
        )
