"""The keys of an SFT or GRPO recipe, the checks on them, and the number of steps that follows from them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers.trainer_utils import HubStrategy
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig

from a2r_train.config import check_least, load_dotted
from a2r_train.errors import InputError
from a2r_train.train.callbacks import callbacks_of
from a2r_train.train.rationalise import HINT, check_hint
from a2r_train.train.values import check_model_values, check_values

TrainConfig = SFTConfig | GRPOConfig


@dataclass
class BundleArguments:
    """What a run trains on, and how it is rendered."""

    bundles: str = field(
        metadata={
            "help": "training bundles: a .jsonl or .parquet file, or a dataset on the hub; "
            "with plain_share 1, also problems without references"
        }
    )
    prompt: str = field(
        default="",
        metadata={"help": "a prompt file; if empty: the model's own, that of the bundles, or the default"},
    )
    prompt_override: bool = field(
        default=False, metadata={"help": "allow `prompt` to differ from the one the model was trained with"}
    )
    plain_share: float = field(
        default=0.0,
        metadata={"help": "share of the bundles shown without their references; 1 is the control"},
    )
    callbacks: list[str] = field(
        default_factory=list, metadata={"help": "dotted paths of your own TrainerCallback classes"}
    )
    max_bundles: int = field(default=0, metadata={"help": "use only the first N bundles; 0 uses all of them"})
    dry_run: bool = field(
        default=False,
        metadata={"help": "show the config, one example, the token budget and the steps, then stop"},
    )

    def __post_init__(self) -> None:
        check_least(self, max_bundles=0)
        callbacks_of(self.callbacks)  # fail before anything is read


@dataclass
class ModelArguments(ModelConfig):
    """TRL's ModelConfig, except that `dtype` auto means float32, or bfloat16 for the frozen base under LoRA
    on a GPU (`dtype_of`).

    Trained weights stay float32 (autocast computes in bfloat16), because bfloat16 rounds small updates away.
    """

    dtype: str | None = field(
        default="auto",
        metadata={
            "help": "of the loaded weights; auto is bfloat16 under an adapter on a GPU, otherwise float32",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        check_model_values(self)


@dataclass
class SynthesizerGRPOConfig(GRPOConfig):
    """TRL's GRPOConfig with this package's own options; what needs a GPU is on only where there is one.

    Dropout is off, in adapters too: completions are sampled without it, so with it the trainer would see a
    different policy. `load_best_model_at_end` keeps the checkpoint with the best reward on the validation
    bundles, not the lowest loss.
    """

    hub_strategy: HubStrategy | str = field(
        default="end", metadata={"help": "end: only the finished folder is pushed to the hub"}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "train without dropout, because completions are sampled without it"}
    )
    reward_funcs: list[str] = field(
        default_factory=list,
        metadata={
            "help": "dotted paths of further reward functions, with TRL's signature; reward_weights then "
            "needs one weight for the verified reward, two more if the prompt has sections, and one for each "
            "of these functions"
        },
    )
    pass_at_k: int = field(
        default=1, metadata={"help": "train for the pass@k of a group; 1 is the usual reward"}
    )
    validation: str = field(
        default="",
        metadata={
            "help": "validation bundles; `eval_strategy` sets the steps at which their eval_reward is logged"
        },
    )
    shared_prefix: bool = field(
        default=False, metadata={"help": "compute a group's prompt once, not once per completion"}
    )
    oversampling_factor: int = field(
        default=1,
        metadata={
            "help": "dynamic sampling: generate this many times the groups, and keep those with a signal"
        },
    )
    match_tokens_of: str = field(
        default="",
        metadata={"help": "for the control: the finished training whose steps and generated tokens to match"},
    )

    def __post_init__(self) -> None:
        set_defaults(self)
        if self.load_best_model_at_end and not self.metric_for_best_model:
            self.metric_for_best_model = "reward"
        super().__post_init__()  # type: ignore[no-untyped-call]
        check_least(self, oversampling_factor=1)
        if self.match_tokens_of and not self._rate_is_constant():
            raise ValueError(
                "match_tokens_of: the number of steps is not known in advance; set lr_scheduler_type to "
                "constant_with_warmup, and warmup_steps to a number of steps"
            )
        self._check_validation()
        for path in self.reward_funcs:
            load_dotted(path, "reward_funcs")
        weights, rewards = self.reward_weights, 1 + len(self.reward_funcs)
        # Two more if the prompt has sections; only `settle_weights` knows that.
        if weights is not None and len(weights) not in (rewards, rewards + 2):
            raise ValueError(
                f"reward_weights has {len(weights)} weights for {rewards} "
                "rewards: the verified one, then reward_funcs"
            )
        if self.load_best_model_at_end:
            self._check_best_model()
        self._check_pass_at_k()

    @property
    def eval_completions(self) -> int:
        """Completions per bundle in an evaluation."""
        return int(self.num_generations_eval or self.num_generations or 1)

    def _rate_is_constant(self) -> bool:
        """Whether the learning rate does not depend on the total number of steps."""
        kind = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        return kind in ("constant", "constant_with_warmup") and not 0 < self.warmup_steps < 1

    def _check_pass_at_k(self) -> None:
        """Raises ValueError for a k outside the group, and for processes that would score parts of groups."""
        group = int(self.num_generations or 1)
        if not 1 <= self.pass_at_k <= group:
            raise ValueError(f"pass_at_k is {self.pass_at_k}; expected 1 to num_generations, {group}")
        scored = self.per_device_train_batch_size * int(self.steps_per_generation or 1)
        if self.pass_at_k > 1 and scored % group:
            raise ValueError(
                f"pass_at_k: each process scores {scored} completions, not whole groups of {group}; make "
                "per_device_train_batch_size x steps_per_generation, which is gradient_accumulation_steps if "
                "not set, a multiple of num_generations"
            )

    def _check_validation(self) -> None:
        """Raises ValueError for an evaluation that would abort the training."""
        group, batch = int(self.num_generations or 1), self.per_device_eval_batch_size
        if bool(self.validation) != (self.eval_strategy != "no"):
            raise ValueError(
                "validation and eval_strategy go together: name the bundles, and when to evaluate (steps)"
            )
        if self.save_strategy == "best":
            raise ValueError(
                "save_strategy best saves no step to resume from; use steps, with load_best_model_at_end"
            )
        if (
            self.validation
            and self.pass_at_k > 1
            and ((self.num_generations_eval or group) != group or batch % group)
        ):
            raise ValueError(
                "pass_at_k needs whole groups in an evaluation, too: remove num_generations_eval, and "
                f"make per_device_eval_batch_size a multiple of num_generations, {group}"
            )

    def _check_best_model(self) -> None:
        """Raises ValueError where a checkpoint other than the best would be kept."""
        if str(self.metric_for_best_model).removeprefix("eval_") not in ("reward", "loss"):
            raise ValueError(
                f"metric_for_best_model is {self.metric_for_best_model}; expected reward or loss"
            )
        if self.eval_strategy == "steps" and self.eval_steps != self.save_steps:
            raise ValueError(
                "load_best_model_at_end can keep only a saved step: make save_steps "
                f"({self.save_steps:g}) and eval_steps ({self.eval_steps:g}) equal"
            )


@dataclass
class SynthesizerSFTConfig(SFTConfig):
    """TRL's SFTConfig with the options for targets. `max_length` is unset so that nothing is cut; packing
    needs it.
    """

    hub_strategy: HubStrategy | str = field(
        default="end", metadata={"help": "end: only the finished folder is pushed to the hub"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "longest row in tokens; a longer row is an error"}
    )
    chat_template_kwargs: str = field(
        default="",
        metadata={"help": "arguments of the chat template; if empty, those of the bundles' task"},
    )
    targets: str = field(
        default="",
        metadata={
            "help": "answers from elsewhere, to be verified: rows with bundle_id and text; rollouts, of "
            "which each bundle gets a right one that it does not show; `references` takes the shortest "
            "right reference of each bundle; if empty, they are sampled"
        },
    )
    teacher: str = field(
        default="", metadata={"help": "the model that answers the bundles; if empty, the base itself"}
    )
    target_engine: str = field(
        default="auto",
        metadata={
            "help": "what samples them: transformers or vllm; auto chooses as `engine` of explore does"
        },
    )
    target_samples: int = field(default=4, metadata={"help": "answers sampled for each bundle"})
    target_temperature: float = field(default=1.0, metadata={"help": "sampling temperature of these answers"})
    max_targets_per_problem: int = field(
        default=2,
        metadata={
            "help": "verified answers kept per problem, from its hardest bundles first; a file of answers "
            "of your own is used whole"
        },
    )
    max_target_tokens: int = field(
        default=1024,
        metadata={"help": "answers longer than this are not used as targets, except those of your own file"},
    )
    target_batch_size: int = field(
        default=64, metadata={"help": "with transformers: answers generated at once"}
    )
    rationalised_share: float = field(
        default=0.0,
        metadata={"help": "largest share of targets made with the gold answer shown; 0 makes none"},
    )
    rationalised_hint: str = field(
        default=HINT, metadata={"help": "what is then added to the prompt; targets are trained without it"}
    )

    def __post_init__(self) -> None:
        set_defaults(self)
        self._check_losses()
        self._check_targets()
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.completion_only_loss = True

    def _check_losses(self) -> None:
        """Raises InputError for TRL options with which more than the targets would be trained on."""
        if self.completion_only_loss is False:
            raise InputError(
                "completion_only_loss: false is not supported: the prompt is never trained on; remove the key"
            )
        if self.assistant_only_loss:
            raise InputError(
                "assistant_only_loss is not supported: only the completion is trained on; remove the key"
            )
        if self.eval_strategy != "no" or self.eval_on_start:
            raise InputError(
                "eval_strategy and eval_on_start are not supported: SFT has no validation set; "
                "remove the keys"
            )
        if self.packing and self.max_length is None:
            raise InputError("packing: set max_length, the length of a packed row in tokens")

    def _check_targets(self) -> None:
        """Raises InputError for settings with which no target can be sampled."""
        check_least(
            self, target_samples=1, max_targets_per_problem=1, max_target_tokens=1, target_batch_size=1
        )
        if self.target_engine not in ("auto", "transformers", "vllm"):
            raise InputError(f"target_engine {self.target_engine!r}: expected auto, transformers or vllm")
        if not 0 <= self.target_temperature < math.inf:
            raise InputError(f"target_temperature is {self.target_temperature:g}; expected 0 or more")
        if not 0 <= self.rationalised_share < 1:
            raise InputError(
                f"rationalised_share is {self.rationalised_share:g}; expected 0 or more, and less than 1"
            )
        sampled = ("rationalised_share", "teacher")  # others are in recipes to which a command adds targets
        defaults = {one.name: one.default for one in fields(self)}
        for key in sampled if self.targets else ():
            if getattr(self, key) != defaults[key]:
                raise InputError(
                    f"{key} is for sampled targets, but `targets` names them; remove one of the two"
                )
        check_hint(self.rationalised_hint)
        if self.rationalised_hint != HINT and not self.rationalised_share:
            raise InputError(
                "rationalised_hint is not used without rationalised_share; set that share above 0"
            )


def set_defaults(args: TrainConfig) -> None:
    """Set defaults that differ from those of TRL and transformers.

    bfloat16 autocast is on only with a GPU unless the recipe sets it, and pinned memory only with a GPU. A
    hub token is moved to where huggingface_hub looks for it, because the arguments are written into every
    checkpoint. TRL sets activation checkpointing under its old name, about which transformers warns; and with
    an adapter it lets DDP search for unused parameters in each forward pass, although there are none. Raises
    InputError for what is not supported, and for values that are too small.
    """
    _check_served(args)
    check_values(args)
    check_least(args, per_device_train_batch_size=1, gradient_accumulation_steps=1, learning_rate=0)
    if isinstance(args, GRPOConfig) and args.temperature <= 0:
        raise InputError(
            f"temperature is {args.temperature:g}: GRPO learns from differences between completions of one "
            "prompt; expected above 0, such as 1.0"
        )
    gpu = torch.cuda.is_available() and not args.use_cpu
    if args.bf16 is None:
        args.bf16 = gpu and not args.fp16
    args.dataloader_pin_memory = args.dataloader_pin_memory and gpu
    if args.hub_token:
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token, None
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False
    if args.activation_checkpointing is None:
        args.activation_checkpointing = args.gradient_checkpointing


def _check_served(args: TrainConfig) -> None:
    """Raise InputError for a tokenizer other than the model's, and for pushing before the end: transformers
    would then copy a half-trained model at each save.
    """
    for key in ("chat_template_path", "eos_token", "pad_token"):
        if getattr(args, key, None):
            raise InputError(
                f"{key}: explore and evaluate use the model's own tokenizer, so training must not change it; "
                "set it in the model's folder, and remove the key"
            )
    strategy = str(getattr(args.hub_strategy, "value", args.hub_strategy))
    if strategy != HubStrategy.END.value:
        raise InputError(
            f"hub_strategy: {strategy} is not supported: only the finished folder is pushed to the hub; "
            "remove the key"
        )


def check_launch(args: TrainConfig) -> None:
    """Raise InputError where one process sees several GPUs: transformers would copy the model to each, which
    TRL refuses.
    """
    if args.n_gpu > 1:
        raise InputError(
            f"one process sees {args.n_gpu} GPUs: start one process per GPU (accelerate launch --config_file "
            f"accelerate_configs/ddp.yaml --num_processes {args.n_gpu} ..., or a2r run ... "
            f"--accelerate_config accelerate_configs/ddp.yaml --processes {args.n_gpu}), "
            "or let it see only one (CUDA_VISIBLE_DEVICES=0)"
        )


def cycle_steps(args: TrainConfig) -> int:
    """Optimizer steps from one generation of GRPO to the next, where a run can be resumed; TRL counts in
    forward passes.
    """
    if not isinstance(args, GRPOConfig):
        return 1
    passes = generation_passes(args)
    return math.lcm(passes, args.gradient_accumulation_steps) // args.gradient_accumulation_steps


def generation_passes(args: GRPOConfig) -> int:
    """Forward passes of a process that are trained on one generation."""
    return int(args.steps_per_generation or 1) * args.num_iterations


def rows_of_a_batch(args: TrainConfig) -> int:
    """Rows of the dataset that a step takes; a smaller rest at the end of an epoch is left out.

    GRPO's sampler draws whole generations. 1 where a short batch is trained on, too.
    """
    if isinstance(args, GRPOConfig):
        return int(args.generation_batch_size or 1) // int(args.num_generations or 1)
    return args.per_device_train_batch_size * args.world_size if args.dataloader_drop_last else 1


def trained_rows(args: TrainConfig, rows: int) -> int:
    """How many of these rows an epoch trains on."""
    return rows - rows % rows_of_a_batch(args)


def no_batch(args: TrainConfig, rows: int, what: str) -> str:
    """The message for rows that do not fill one batch, with what to do."""
    keys, taken = "dataloader_drop_last is set, and a batch takes", "remove dataloader_drop_last"
    if isinstance(args, GRPOConfig):
        keys, taken = "a generation takes", "lower per_device_train_batch_size or steps_per_generation"
    return (
        f"{keys} {rows_of_a_batch(args)} {what}, but there are only {rows}, so nothing would be trained; "
        f"{taken}, or bundle more problems"
    )


def batch_and_steps(args: TrainConfig, rows: int) -> tuple[int, int]:
    """Completions per optimizer step, and steps of the whole training; `rows` is the number of completions
    that an epoch trains on.
    """
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if args.max_steps > 0:
        return batch, args.max_steps
    return batch, math.ceil(math.ceil(rows / batch) * args.num_train_epochs)


def interval(every: float, steps: int) -> float:
    """Steps between two saves or evaluations; a value below 1 is a share of the training, as in
    transformers.
    """
    return every if every >= 1 else max(1.0, steps * every)


def mapping(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """The dict that a TRL argument holds, {} if it holds none; it is text only until it is parsed."""
    return value if isinstance(value, dict) else {}
