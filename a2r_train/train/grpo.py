"""Reinforcement learning of a synthesizer with a verifiable reward (GRPO, arXiv 2402.03300; TRL's
GRPOTrainer).
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from datasets import Dataset
from rich.console import Console
from trl.trainer.grpo_config import GRPOConfig

from a2r_train import process
from a2r_train.config import parse
from a2r_train.engines.vllm import check_vllm, prepare_colocate
from a2r_train.errors import InputError
from a2r_train.process import leave
from a2r_train.train import preflight
from a2r_train.train.arguments import (
    BundleArguments,
    ModelArguments,
    batch_and_steps,
    check_launch,
    interval,
    mapping,
    model_arguments,
    set_defaults,
)
from a2r_train.train.bundles import Material, check_context, describe, load_material
from a2r_train.train.estimate import report as estimate
from a2r_train.train.rewards import PassAtKReward, VerifiableReward
from a2r_train.train.run import finish, open_folder, resolved, run_training
from a2r_train.train.sampling import EpochGRPOTrainer
from a2r_train.train.shared_prefix import trainer as shared_prefix

log = logging.getLogger(__name__)


@dataclass
class SynthesizerGRPOConfig(GRPOConfig):
    """TRL's, with what needs a GPU only where there is one, and the shared prefix.

    Dropout is off, also that of an adapter: completions are drawn without it, and with it the trainer would
    see another policy. `load_best_model_at_end` keeps the checkpoint with the best reward on the validation
    bundles, not the lowest loss.
    """

    disable_dropout: bool = field(
        default=True, metadata={"help": "train without dropout, as completions are drawn"}
    )
    pass_at_k: int = field(
        default=1, metadata={"help": "train for the pass@k of a group; 1 is the usual reward"}
    )
    validation: str = field(
        default="", metadata={"help": "bundles whose reward is logged as eval_reward, by `eval_strategy`"}
    )
    shared_prefix: bool = field(
        default=False, metadata={"help": "a group's prompt is computed once, not once a completion"}
    )

    def __post_init__(self) -> None:
        set_defaults(self)
        if self.load_best_model_at_end and not self.metric_for_best_model:
            self.metric_for_best_model = "reward"
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._check_validation()
        if not 1 <= self.pass_at_k <= int(self.num_generations or 1):
            raise ValueError(
                f"pass_at_k is {self.pass_at_k}; expected 1 to num_generations, {self.num_generations}"
            )

    def _check_validation(self) -> None:
        """Raises ValueError for an evaluation that would end the training, or keep another checkpoint than
        the best.
        """
        group, batch = int(self.num_generations or 1), self.per_device_eval_batch_size
        if bool(self.validation) != (self.eval_strategy != "no"):
            raise ValueError(
                "validation and eval_strategy go together: name bundles, and when they are answered (steps)"
            )
        if self.save_strategy == "best":
            raise ValueError(
                "save_strategy best saves no step to go on from; take steps, and load_best_model_at_end"
            )
        if (
            self.validation
            and self.pass_at_k > 1
            and ((self.num_generations_eval or group) != group or batch % group)
        ):
            raise ValueError(
                "pass_at_k needs whole groups in an evaluation, too: leave "
                "num_generations_eval out, and make "
                f"per_device_eval_batch_size a multiple of num_generations, {group}"
            )
        if not self.load_best_model_at_end:
            return
        if str(self.metric_for_best_model).removeprefix("eval_") not in ("reward", "loss"):
            raise ValueError(
                f"metric_for_best_model is {self.metric_for_best_model}; expected reward or loss"
            )
        if self.eval_strategy == "steps" and self.eval_steps != self.save_steps:
            raise ValueError(
                "load_best_model_at_end keeps a step that was saved: make save_steps "
                f"({self.save_steps:g}) and eval_steps "
                f"({self.eval_steps:g}) the same"
            )


ARGUMENTS = [BundleArguments, SynthesizerGRPOConfig, ModelArguments]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the recipe and train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return process.run(lambda: train(*parse(ARGUMENTS, argv)))


def train(data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments) -> None:
    """Train on the bundles and save.

    Raises InputError for wrong input, and where a check of the preflight is red.
    """
    check_launch(args)
    if args.use_vllm:
        check_vllm()
    material = load_material(data, model, args.trust_remote_code)
    validation = load_validation(data, args, model, material)
    preflight.require(_checks(args, model, material))
    if data.dry_run:
        trained = f"{args.num_generations} completions of at most {args.max_completion_length} tokens"
        budget = f"max_completion_length {args.max_completion_length} tokens"
        rows = _rows(args, material)
        sys.stdout.write(describe(resolved(data, args, model), args, material, trained, budget, rows))
        validated = _validated(args, material, validation)
        estimate.show(args, model, material, int(args.max_completion_length or 0), rows, Console(), validated)
    elif not open_folder(data, args, model, material):
        _train(data, args, model, material, validation)


def checks(
    data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments
) -> list[preflight.Check]:
    """The preflight alone. Raises InputError where data or model cannot be read."""
    material = load_material(data, model, args.trust_remote_code)
    load_validation(data, args, model, material)
    return _checks(args, model, material)


def load_validation(
    data: BundleArguments, args: SynthesizerGRPOConfig, model: ModelArguments, material: Material
) -> Material | None:
    """The validation bundles that fill batches, shown as the training bundles are; None without any.

    Raises InputError as `load_material`, for a problem that is trained on, for a prompt that leaves no room
    to answer, and for too few bundles.
    """
    if not args.validation:
        return None
    found = load_material(
        replace(data, bundles=args.validation, max_bundles=0), model, args.trust_remote_code
    )
    trained = {bundle.problem for bundle in material.bundles}
    if both := [bundle.id for bundle in found.bundles if bundle.problem in trained]:
        raise InputError(
            f"{args.validation}: the problem of bundle {both[0]!r} is trained on, as are {len(both)} in all"
        )
    needed = found.longest_prompt + int(args.max_completion_length or 0)
    check_context(needed, f"{args.validation}: the longest prompt with its completion", found.context)
    if not (taken := _whole_batches(args, len(found.bundles))):
        raise InputError(
            f"{args.validation}: its bundles do not fill a batch; lower per_device_eval_batch_size"
        )
    if taken < len(found.bundles):
        log.info(
            "%s: the first %d of %d bundles, which fill whole batches",
            args.validation,
            taken,
            len(found.bundles),
        )
    return replace(found, bundles=found.bundles[:taken], chats=found.chats[:taken])


def _checks(args: SynthesizerGRPOConfig, model: ModelArguments, material: Material) -> list[preflight.Check]:
    _, steps = batch_and_steps(args, _rows(args, material))
    own = shared_prefix.checks(args, model) if args.shared_prefix else []
    return [*own, *preflight.preflight(args, model, material, int(args.max_completion_length or 0), steps)]


def _rows(args: SynthesizerGRPOConfig, material: Material) -> int:
    return len(material.bundles) * int(args.num_generations or 0) * args.num_iterations


def _whole_batches(args: SynthesizerGRPOConfig, bundles: int) -> int:
    """So many of the bundles fill batches.

    TRL takes the mean over batches: the bundles of a short one would weigh more, and several processes fill
    it up. A short one that is alone in one process is right as it is.
    """
    group = _members(args)
    a_batch = max(1, args.per_device_eval_batch_size * args.world_size // group)
    return bundles // a_batch * a_batch or (bundles if args.world_size == 1 else 0)


def _members(args: SynthesizerGRPOConfig) -> int:
    """Completions of a bundle in an evaluation."""
    return int(args.num_generations_eval or args.num_generations or 1)


def _validated(args: SynthesizerGRPOConfig, material: Material, validation: Material | None) -> float:
    """Completions of all evaluations of the training."""
    if not validation:
        return 0.0
    _, steps = batch_and_steps(args, _rows(args, material))
    times = steps // interval(float(args.eval_steps or 1), steps)
    if args.eval_strategy == "epoch":
        times = math.ceil(args.num_train_epochs)
    return (times + args.eval_on_start) * len(validation.bundles) * _members(args)


def dataset_of(material: Material) -> Dataset:
    """One row a bundle: `prompt` as chat messages, and the columns that the reward reads."""
    columns = ("answer", "verifier", "n_correct", "majority_answer")
    rows = zip(material.bundles, material.chats, strict=True)
    return Dataset.from_list(
        [
            {"prompt": chat, **{c: getattr(b, c) for c in columns}, "plain": b.id in material.plain}
            for b, chat in rows
        ]
    )


def _reward(args: SynthesizerGRPOConfig, material: Material) -> VerifiableReward | PassAtKReward:
    if args.pass_at_k == 1:
        return VerifiableReward(material.prompter)
    return PassAtKReward(material.prompter, args.pass_at_k, int(args.num_generations or 1))


def _train(
    data: BundleArguments,
    args: SynthesizerGRPOConfig,
    model: ModelArguments,
    material: Material,
    validation: Material | None,
) -> None:
    if args.use_vllm and args.vllm_mode == "colocate":
        prepare_colocate()
        args.generation_kwargs = {
            "detokenize": False,
            **mapping(args.generation_kwargs),
        }  # TRL reads the ids alone
    kind = shared_prefix.SharedPrefixGRPOTrainer if args.shared_prefix else EpochGRPOTrainer
    trainer = kind(
        reward_funcs=_reward(args, material),
        args=args,
        train_dataset=dataset_of(material),
        eval_dataset=dataset_of(validation) if validation else None,
        processing_class=material.prompter.tokenizer,
        **model_arguments(args, model),
    )
    run_training(trainer)
    finish(trainer, data, model, "GRPO", f"{len(material.bundles)} bundles")


if __name__ == "__main__":
    leave(main)
