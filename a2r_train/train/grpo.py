"""Reinforcement learning of a synthesizer with a verifiable reward (GRPO, arXiv 2402.03300; TRL's
GRPOTrainer).

    accelerate launch scripts/grpo.py --config recipes/tiny/grpo.yaml

scripts/grpo.py starts `main`. So does `python -m a2r_train.train.grpo`, which `a2r run` launches, because it
also works where only the package is installed, without the scripts folder.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from a2r_train import process
from a2r_train.config import load_dotted, parse
from a2r_train.data.bundles import bundle_in
from a2r_train.engines import begun_with
from a2r_train.engines.vllm import prepare_colocate
from a2r_train.engines.vllm_copies import cache_tokens_of, check_vllm
from a2r_train.records import CORRECT, row_of
from a2r_train.train import dry_run, preflight, run, weight_sync
from a2r_train.train.agreement import agreement_checks
from a2r_train.train.arguments import (
    BundleArguments,
    ModelArguments,
    SynthesizerGRPOConfig,
    batch_and_steps,
    check_launch,
    cycle_steps,
    interval,
    mapping,
    trained_rows,
)
from a2r_train.train.bundles import TrainingBundle, TrainingBundles, load_bundles, load_validation
from a2r_train.train.callbacks import callbacks_of
from a2r_train.train.generated import MOST_LONGER, MatchTokens, budget_of
from a2r_train.train.logprobs import FLAT, read_flat_lists
from a2r_train.train.model import (
    avoid_cudnn_attention,
    check_dropout,
    end_turns_as_the_template_does,
    model_arguments,
    set_loading_options,
    shard_precisely,
)
from a2r_train.train.pass_rates import Bank
from a2r_train.train.rewards import PassAtKReward, VerifiableReward
from a2r_train.train.run import finish, is_done, open_folder, resolved, run_training
from a2r_train.train.sampling import EpochGRPOTrainer, enough_bundles
from a2r_train.train.section_rewards import default_weights, section_rewards, settle_weights
from a2r_train.train.shared_prefix import trainer as shared_prefix
from a2r_train.train.watch import Watch
from a2r_train.verify import start_workers

log = logging.getLogger(__name__)

ARGUMENTS = [BundleArguments, SynthesizerGRPOConfig, ModelArguments]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the recipe and train; returns the exit status."""
    process.start_logging()
    return process.run(lambda: train(*parse(ARGUMENTS, argv)))


def train(data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments) -> None:
    """Train on the bundles and save.

    Raises InputError for wrong input, or if a check of the preflight is red.
    """
    check_launch(args)
    if args.use_vllm:
        check_vllm()
    bundles = load_bundles(data, model, args.trust_remote_code, mapping(args.chat_template_kwargs))
    check_dropout(args, model)
    settle_weights(args, bundles)
    if not data.dry_run and is_done(data, args, model, bundles.prompter.config):
        return
    validation = load_validation(data, args, model, bundles)
    preflight.require(checks_of(args, model, bundles, validation))
    budget = budget_of(args.match_tokens_of, args.max_steps) if args.match_tokens_of else None
    if data.dry_run:
        args.max_steps = budget.steps if budget else args.max_steps
        show_dry_run(data, args, model, bundles, validation)
        return
    watching: list[TrainerCallback] = [Watch()]
    if open_folder(data, args, model, bundles.prompter.config, bundles.bundles):  # done already
        return
    if budget:
        args.max_steps = MOST_LONGER * budget.steps
        watching.append(MatchTokens(budget, cycle_steps(args)))
    args.chat_template_kwargs = bundles.template_arguments()  # TRL renders the prompts again
    end_turns_as_the_template_does(bundles.prompter)
    prepare_vllm(args, bundles.prompter.stop_ids())
    shard_precisely(args)
    avoid_cudnn_attention(args)
    set_loading_options(args, model)
    trainer_class = shared_prefix.SharedPrefixGRPOTrainer if args.shared_prefix else EpochGRPOTrainer
    trainer = trainer_class(
        reward_funcs=rewards_of(args, bundles),
        args=args,
        train_dataset=dataset_of(bundles),
        eval_dataset=dataset_of(validation) if validation else None,
        callbacks=[*callbacks_of(data.callbacks), *watching],
        bank=Bank.of(bundles.bundles) if args.oversampling_factor > 1 else None,
        processing_class=bundles.prompter.tokenizer,
        **model_arguments(args, model),
    )
    log_cache(trainer, args)
    run_training(trainer)
    what = "bundles" if bundles.bundles[0].references else "problems"
    finish(trainer, data, model, "GRPO", f"{len(bundles.rows)} {what}")


def log_cache(trainer: Any, args: SynthesizerGRPOConfig) -> None:
    """Log the size of a colocated vLLM's KV cache: another program that starts on the GPU meanwhile makes it
    small, and generation slow.
    """
    if args.use_vllm and args.vllm_mode == "colocate" and trainer.accelerator.is_main_process:
        tokens = cache_tokens_of(trainer.vllm_generation.llm)
        log.info("%s: vLLM's KV cache holds %s tokens", args.output_dir, f"{tokens:,}")


def check_folder(data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments) -> None:
    """Raise InputError as `run.check_folder` does. Weights that the recipe does not set follow from the
    prompt.
    """
    known = begun_with(str(args.output_dir), "reward_weights")
    is_default = args.reward_weights is None and known in ("", str(default_weights(args)))
    run.check_folder(data, args, model, ["reward_weights"] if is_default else [])


def checks(
    data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments
) -> list[preflight.Check]:
    """What `a2r check` shows: only the preflight. Raises InputError if data or model cannot be read."""
    bundles = load_bundles(data, model, args.trust_remote_code, mapping(args.chat_template_kwargs))
    settle_weights(args, bundles)
    return checks_of(args, model, bundles, load_validation(data, args, model, bundles))


def checks_of(
    args: SynthesizerGRPOConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    validation: TrainingBundles | None,
) -> list[preflight.Check]:
    """The preflight of what was loaded. Raises InputError if the tokens of no finished training are to be
    matched.
    """
    _, steps = batch_and_steps(args, epoch_completions(args, bundles))
    if args.match_tokens_of:
        steps = budget_of(args.match_tokens_of, args.max_steps).steps
    more = preflight.batches(args, len(bundles.rows), "bundles")
    more += shared_prefix.checks(args, model) if args.shared_prefix else []
    more += weight_sync.checks(model) if args.use_vllm else []
    more += enough_bundles(args, len(bundles.rows)) if args.oversampling_factor > 1 else []
    length = int(args.max_completion_length or 0)
    agreement = agreement_checks(bundles, validation)
    return [*more, *preflight.preflight(args, model, bundles, length, steps), *agreement]


def show_dry_run(
    data: BundleArguments,
    args: SynthesizerGRPOConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    validation: TrainingBundles | None,
) -> None:
    """Show what would be trained, and what it would need."""
    length = int(args.max_completion_length or 0)
    dry_run.show(
        resolved(data, args, model),
        args,
        model,
        bundles,
        completion=f"{args.num_generations} completions of at most {length} tokens",
        budget=f"max_completion_length {length} tokens",
        completion_tokens=length,
        epoch_completions=epoch_completions(args, bundles),
        validation_completions=validation_completions(args, bundles, validation),
    )


def prepare_vllm(args: SynthesizerGRPOConfig, stop_ids: Sequence[int]) -> None:
    """Tell vLLM which tokens end a turn and how it gets its weights. In colocate mode, also set it up in the
    trainer's processes, without decoded texts unless stop strings must be found in them: TRL reads only ids.
    """
    if not args.use_vllm:
        return
    own = mapping(args.generation_kwargs)
    args.generation_kwargs = {"stop_token_ids": list(stop_ids), **own}
    weight_sync.add_out_of_place()
    if args.vllm_mode == "colocate":
        prepare_colocate()
        read_flat_lists()
        texts = {} if {"stop", "bad_words"} & own.keys() else {"detokenize": False}
        args.generation_kwargs = {**texts, **FLAT, **args.generation_kwargs}


def rewards_of(args: SynthesizerGRPOConfig, bundles: TrainingBundles) -> list[Any]:
    """The rewards: the verdict of each completion, or its credit for the pass@k of its group; then those of
    the prompt's sections; then the recipe's own. Starts the judging processes, so that they load in the
    meantime.
    """
    start_workers(bundles.bundles.column("verifier").unique().to_pylist())
    verified: VerifiableReward | PassAtKReward = VerifiableReward(bundles.prompter)
    if args.pass_at_k > 1:
        verified = PassAtKReward(bundles.prompter, args.pass_at_k, int(args.num_generations or 1))
    own = (load_dotted(path, "reward_funcs") for path in args.reward_funcs)
    return [verified, *section_rewards(bundles), *own]


def dataset_of(bundles: TrainingBundles) -> Dataset:
    """One row per bundle: `prompt` as chat messages, and the columns that the reward reads.

    Bundles that are not in memory are rendered when a batch asks for them.
    """
    if (mapped := bundles.bundles.mapped) is None:
        return Dataset.from_list([_row(row) for row in bundles.rows])

    def rows_of(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Renders each bundle once, because the rows of a group are the same bundle."""
        made: dict[str, dict[str, Any]] = {}
        for at, identity in enumerate(batch["id"]):
            if identity not in made:
                values = {name: column[at] for name, column in batch.items()}
                made[identity] = _row(bundles.rows.render(bundle_in(values, f"bundle {identity!r}")))
        rows = [made[identity] for identity in batch["id"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return mapped.with_transform(rows_of)


def _row(row: TrainingBundle) -> dict[str, Any]:
    return {
        "prompt": row.chat,
        "bundle_id": row.bundle.id,
        "problem": row.bundle.problem,
        "row": json.dumps(row_of(row.bundle)),
        "answer": row.bundle.answer,
        "verifier": row.bundle.verifier,
        "n_correct": row.bundle.n_correct,
        "majority_answer": row.bundle.majority_answer,
        "plain": not row.shows_references,
        "references_right": [reference.verdict == CORRECT for reference in row.bundle.references],
    }


def epoch_completions(args: SynthesizerGRPOConfig, bundles: TrainingBundles) -> int:
    """Completions of an epoch, each counted as often as it is trained on."""
    return trained_rows(args, len(bundles.rows)) * int(args.num_generations or 0) * args.num_iterations


def validation_completions(
    args: SynthesizerGRPOConfig, bundles: TrainingBundles, validation: TrainingBundles | None
) -> float:
    """Completions of all evaluations of the training."""
    if not validation:
        return 0.0
    _, steps = batch_and_steps(args, epoch_completions(args, bundles))
    evaluations = steps // interval(float(args.eval_steps or 1), steps)
    if args.eval_strategy == "epoch":
        evaluations = math.ceil(args.num_train_epochs)
    return (evaluations + args.eval_on_start) * len(validation.rows) * args.eval_completions


if __name__ == "__main__":
    process.leave(main)
