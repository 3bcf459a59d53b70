"""Supervised fine-tuning of a synthesizer on verified answers to its own training bundles (TRL's SFTTrainer).

    accelerate launch scripts/sft.py --config recipes/tiny/sft.yaml

scripts/sft.py starts `main`. So does `python -m a2r_train.train.sft`, which `a2r run` launches, because it
also works where only the package is installed, without the scripts folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset
from trl.trainer.sft_trainer import SFTTrainer

from a2r_train import process
from a2r_train.config import parse
from a2r_train.records import Synthesis
from a2r_train.train import dry_run, preflight, yellow_checks
from a2r_train.train.arguments import (
    BundleArguments,
    ModelArguments,
    SynthesizerSFTConfig,
    batch_and_steps,
    check_launch,
    trained_rows,
)
from a2r_train.train.bundles import TrainingBundles, load_bundles
from a2r_train.train.callbacks import callbacks_of
from a2r_train.train.model import (
    avoid_cudnn_attention,
    check_dropout,
    end_turns_as_the_template_does,
    model_arguments,
    set_loading_options,
    shard_precisely,
)
from a2r_train.train.run import finish, is_done, open_folder, resolved, run_training
from a2r_train.train.targets import REFERENCES, sample_targets, settle_engine, supplied_targets, training_rows

log = logging.getLogger(__name__)

ARGUMENTS = [BundleArguments, SynthesizerSFTConfig, ModelArguments]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the recipe and train; returns the exit status."""
    process.start_logging()
    return process.run(lambda: train(*parse(ARGUMENTS, argv)))


def train(data: BundleArguments, args: SynthesizerSFTConfig, model: ModelArguments) -> None:
    """Sample or read targets, train on them, and save.

    Raises InputError for wrong input, or if a check of the preflight is red.
    """
    check_launch(args)
    bundles = load_bundles(data, model, args.trust_remote_code, args.chat_template_kwargs)
    check_dropout(args, model)
    if not data.dry_run and is_done(data, args, model, bundles.prompter.config):
        return
    supplied = supplied_targets(args, model, bundles)
    preflight.require(checks_of(args, model, bundles, supplied))
    if data.dry_run:
        show_dry_run(data, args, model, bundles, supplied)
        return
    if not supplied:
        settle_engine(args, model)
    if open_folder(data, args, model, bundles.prompter.config, bundles.bundles):  # done already
        return
    end_turns_as_the_template_does(bundles.prompter)
    targets = supplied or sample_targets(args, model, bundles)
    if not supplied:
        warn_few_targets(len(targets), more_targets(args, bundles, len(targets), supplied=False))
    shard_precisely(args)
    avoid_cudnn_attention(args)
    set_loading_options(args, model)
    trainer = SFTTrainer(
        args=args,
        train_dataset=Dataset.from_list(training_rows(bundles, targets, args.max_length)),
        processing_class=bundles.prompter.tokenizer,
        callbacks=callbacks_of(data.callbacks),
        **model_arguments(args, model),
    )
    run_training(trainer)
    finish(trainer, data, model, "SFT", trained_on(targets, len(bundles.rows)))


def trained_on(targets: Sequence[Synthesis], bundles: int) -> str:
    """What the model card says about the targets."""
    shown = sum(target.rationalised for target in targets)
    says = f"{len(targets)} verified answers to {bundles} bundles"
    return f"{says}, {shown} of them rationalised: the gold answer was shown" if shown else says


def checks(data: BundleArguments, args: SynthesizerSFTConfig, model: ModelArguments) -> list[preflight.Check]:
    """What `a2r check` shows: only the preflight. Raises InputError if data or model cannot be read."""
    bundles = load_bundles(data, model, args.trust_remote_code, args.chat_template_kwargs)
    return checks_of(args, model, bundles, supplied_targets(args, model, bundles))


def checks_of(
    args: SynthesizerSFTConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    supplied: Sequence[Synthesis],
) -> list[preflight.Check]:
    """The preflight of what was loaded."""
    targets = epoch_targets(args, bundles, supplied)
    _, steps = batch_and_steps(args, trained_rows(args, targets))
    tokens = None if supplied else args.max_target_tokens
    few = yellow_checks.few_targets(targets, more_targets(args, bundles, targets, bool(supplied)))
    few = f"at most {few}" if few and not supplied else few
    return [
        *preflight.batches(args, targets, "targets"),
        *preflight.preflight(args, model, bundles, tokens, steps),
        *([preflight.Check("targets", True, few, yellow=True)] if few else []),
    ]


def more_targets(args: SynthesizerSFTConfig, bundles: TrainingBundles, targets: int, supplied: bool) -> str:
    """How to get more targets: the limit is either the cap per problem or the number of samples."""
    if supplied and args.targets != REFERENCES:
        return "supply more of them, or bundle more problems"
    if targets >= capped(args, bundles):
        return "bundle more problems, or raise max_targets_per_problem"
    return "bundle more problems" + ("" if supplied else ", or raise target_samples")


def capped(args: SynthesizerSFTConfig, bundles: TrainingBundles) -> int:
    """The most targets that the cap per problem allows."""
    problems = pc.count_distinct(bundles.bundles.column("problem_id")).as_py()
    return int(problems) * args.max_targets_per_problem


def warn_few_targets(targets: int, remedy: str) -> None:
    """Warn about few targets: the preflight knew only the most that there might be."""
    few = yellow_checks.few_targets(targets, remedy)
    if few and PartialState().is_main_process:
        log.warning("yellow, targets: %s", few)


def show_dry_run(
    data: BundleArguments,
    args: SynthesizerSFTConfig,
    model: ModelArguments,
    bundles: TrainingBundles,
    supplied: Sequence[Synthesis],
) -> None:
    """Show what would be trained, and what it would need."""
    first = bundles.sample[0].bundle.id
    to_sample = f"a verified answer of at most {args.max_target_tokens} tokens, and the end of the turn"
    longest = max(
        (bundles.prompter.count(target.text) for target in supplied), default=args.max_target_tokens
    )
    dry_run.show(
        resolved(data, args, model),
        args,
        model,
        bundles,
        completion=next((target.text for target in supplied if target.bundle_id == first), to_sample),
        budget=f"completion at most {args.max_target_tokens} tokens",
        completion_tokens=longest,
        epoch_completions=trained_rows(args, epoch_targets(args, bundles, supplied)),
    )


def epoch_targets(args: SynthesizerSFTConfig, bundles: TrainingBundles, supplied: Sequence[Synthesis]) -> int:
    """Targets of an epoch; an upper bound if they are yet to be sampled."""
    most = min(len(bundles.rows) * args.target_samples, capped(args, bundles))
    return len(supplied) or most


if __name__ == "__main__":
    process.leave(main)
