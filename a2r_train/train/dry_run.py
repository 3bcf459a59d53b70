"""What `--dry_run` of a trainer shows: the recipe with every default, one example, the token budget, and the
memory needed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml
from rich.console import Console

from a2r_train.train.arguments import ModelArguments, TrainConfig, batch_and_steps
from a2r_train.train.bundles import TrainingBundles
from a2r_train.train.estimate import report as estimate


def show(
    recipe: dict[str, Any],
    args: TrainConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    *,
    completion: str,
    budget: str,
    completion_tokens: int,
    epoch_completions: int,
    validation_completions: float = 0,
) -> None:
    """Print all of it; loads no weights.

    `completion` stands for what is trained on in the example, and `completion_tokens` is its maximum length.
    `epoch_completions` counts over all steps of an epoch, `validation_completions` over all evaluations.
    """
    sys.stdout.write(describe(recipe, args, bundles, completion, budget, epoch_completions))
    step = estimate.step_of(args, bundles.longest_prompt, completion_tokens)
    estimate.show(args, model, step, epoch_completions, Console(), validation_completions)


def describe(
    recipe: dict[str, Any],
    args: TrainConfig,
    bundles: TrainingBundles,
    completion: str,
    budget: str,
    epoch_completions: int,
) -> str:
    """Recipe, one example with the trained tokens between ⟦ and ⟧, token budget, steps."""
    batch, steps = batch_and_steps(args, epoch_completions)
    shown = yaml.safe_dump(json.loads(json.dumps(recipe, default=str)), sort_keys=False, allow_unicode=True)
    example = bundles.prompter.text(bundles.sample[0].chat)
    return (
        f"{shown}\n--- one example, the trained tokens between ⟦ and ⟧\n{example}⟦{completion}⟧\n\n"
        f"--- budget\nlongest prompt {bundles.longest_prompt} tokens, {budget}, "
        f"model context {bundles.context} tokens; "
        f"{bundles.cut_references} references cut\n"
        f"at most {epoch_completions} completions per epoch, {batch} per step: {steps} steps\n"
    )
