"""What SFT and GRPO share: arguments, rendered bundles, token budget, model, and how a training begins, resumes and ends."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM, Trainer
from transformers.trainer_utils import HubStrategy
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from a2r_train import output
from a2r_train.config import check_least
from a2r_train.errors import InputError, RunError
from a2r_train.explore import seed_of
from a2r_train.models import base_of, check_weights, context_length, load_tokenizer, trust
from a2r_train.prompts import Chat, Prompter, prompt_of
from a2r_train.records import Bundle, read, write_text
from a2r_train.rollouts import check_references
from a2r_train.train import finite, stop
from a2r_train.verify import check_gold

log = logging.getLogger(__name__)

TrainConfig = SFTConfig | GRPOConfig

# A run may go on with other values of these: how it is shown, kept and spread, not what it learns. What an evaluation
# takes is not among them: it draws completions, after which the next step draws others, and it chooses what is kept.
INPUTS = ("bundles", "validation", "targets", "prompt")  # files, whose content belongs to a run
IGNORE = (
    *("run_name", "project", "report_to", "local_rank", "use_cpu", "bf16", "tf32", "disable_tqdm"),
    *("log_level", "log_level_replica", "logging_steps", "logging_strategy", "logging_first_step", "log_completions"),
    *("save_steps", "save_strategy", "save_total_limit", "generation_batch_size", "deepspeed", "fsdp", "fsdp_config"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataset_num_proc", "ddp_timeout"),
    *("gradient_checkpointing", "activation_checkpointing"),
    *("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "vllm_enable_sleep_mode", "vllm_group_port"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout"),
    *("resume_from_checkpoint", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_strategy", "hub_revision"),
    "num_completions_to_print",
)


@dataclass
class BundleArguments:
    """What is trained on, and how it is rendered."""

    bundles: str = field(metadata={"help": "training bundles: a .jsonl or .parquet file, or a data set of the hub"})
    prompt: str = field(default="", metadata={"help": "a prompt file; empty for the model's own, else the default prompt"})
    plain_share: float = field(
        default=0.0, metadata={"help": "share of the bundles that are shown as the problem alone; 1 is the control"}
    )
    max_bundles: int = field(default=0, metadata={"help": "take only the first so many; 0 takes all"})
    dry_run: bool = field(default=False, metadata={"help": "show config, one example, token budget and steps, and stop"})


@dataclass
class ModelArguments(ModelConfig):
    """TRL's, but `dtype` auto is float32, save for LoRA on a GPU, whose frozen base is bfloat16 (`dtype_of`).

    Weights that are trained stay float32 (autocast computes in bfloat16): bfloat16 rounds small updates away.
    """

    dtype: str | None = field(
        default="auto",
        metadata={
            "help": "of the loaded weights; auto is bfloat16 under an adapter on a GPU, and float32 else and for vLLM",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )


@dataclass(frozen=True)
class Material:
    """Bundles with their rendered chats, which run parallel; lengths in tokens. `plain`: ids of those without references."""

    bundles: list[Bundle]
    chats: list[Chat]
    plain: frozenset[str]
    prompter: Prompter
    longest_prompt: int
    context: int
    cut_references: int


def set_defaults(args: TrainConfig) -> None:
    """bfloat16 autocast and pinned memory where there is a GPU, unless the recipe says; TRL asks for both on any machine.

    Raises InputError for a batch of nothing.

    A token of the hub goes where huggingface_hub looks for it: the arguments are written into every checkpoint as they are.
    TRL sets activation checkpointing by its old name, of which transformers warns. What goes to the hub is the finished
    folder: at each save transformers would copy a half-trained model into it.
    """
    check_least(args, per_device_train_batch_size=1, gradient_accumulation_steps=1, learning_rate=0)
    gpu = torch.cuda.is_available() and not args.use_cpu
    if args.bf16 is None:
        args.bf16 = gpu and not args.fp16
    args.dataloader_pin_memory = args.dataloader_pin_memory and gpu
    if args.hub_token:
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token, None
    args.hub_strategy = HubStrategy.END
    if args.activation_checkpointing is None:
        args.activation_checkpointing = args.gradient_checkpointing


def dtype_of(args: TrainConfig | None, model: ModelArguments, adapter: bool) -> str | None:
    """Of the loaded weights on a GPU; `adapter`: adapters alone are trained.

    For vLLM TRL adds an adapter to its base and takes it away again, before each generation: bfloat16 would round the base
    each time, and the saved adapter would not be that of the base it was trained on. A quantised base is rounded anyway.
    """
    if model.dtype != "auto":
        return model.dtype
    whole = not (model.load_in_4bit or model.load_in_8bit)
    merged = isinstance(args, GRPOConfig) and args.use_vllm and whole
    return "bfloat16" if adapter and not merged else "float32"


def check_launch(args: TrainConfig) -> None:
    """Raise InputError where one process sees several GPUs: transformers would copy the model to each, which TRL refuses."""
    if args.n_gpu > 1:
        raise InputError(
            f"one process and {args.n_gpu} GPUs: start one process a GPU (accelerate launch --config_file "
            f"accelerate_configs/ddp.yaml --num_processes {args.n_gpu} ..., or a2r run ... --accelerate_config "
            f"accelerate_configs/ddp.yaml --processes {args.n_gpu}), or show it one (CUDA_VISIBLE_DEVICES=0)"
        )


def load_material(data: BundleArguments, model: ModelArguments, trust_remote_code: bool = False) -> Material:
    """Read, check and render the bundles; loads the tokenizer and no weights, and runs no code of the model unless told.

    Raises InputError for a broken bundle, an unparsable gold answer, a prompt over budget, a model without weights, and for
    a revision other than main, as tokenizer, prompt, context and base would be those of main.
    """
    if not 0 <= data.plain_share <= 1:
        raise InputError(f"plain_share is {data.plain_share}; expected a share from 0 to 1")
    name = model.model_name_or_path
    if not name:
        raise InputError("model_name_or_path is missing; name a checkpoint folder or a model of the hub")
    if model.model_revision != "main":
        raise InputError(
            f"model_revision {model.model_revision} would move the weights alone; download it to a folder, and name that: "
            f"hf download {name} --revision {model.model_revision} --local-dir FOLDER"
        )
    check_weights(name)
    if base_of(name).endswith(".gguf"):
        raise InputError(
            f"{name}: a GGUF file cannot be trained; make a folder of it: a2r merge --model FILE --output_dir FOLDER"
        )
    if trust_remote_code:
        trust(name)
    bundles = read(Bundle, data.bundles)[: data.max_bundles or None]
    check_gold(bundles)
    check_references(bundles, data.bundles)
    prompter = Prompter(load_tokenizer(name), prompt_of(name, data.prompt))
    plain = frozenset(bundle.id for bundle in bundles if seed_of(0, "plain", bundle.id) < data.plain_share * 2**32)
    chats, lengths, cut = [], [], 0
    for bundle in bundles:
        if bundle.id not in plain:
            rendered = prompter.synthesizer(bundle.problem, bundle.references, bundle.reference_answers)
            chats.append(rendered.chat)
            lengths.append(rendered.prompt_tokens)
            cut += rendered.cut_references
        else:
            chats.append(prompter.explorer(bundle.problem))
            lengths.append(len(prompter.token_ids(chats[-1])))
    return Material(bundles, chats, plain, prompter, max(lengths), context_length(name), cut)


def check_context(tokens: int, what: str, context: int) -> None:
    """Raise InputError if so many tokens do not fit the model."""
    if tokens > context:
        raise InputError(
            f"{what} is {tokens} tokens long, over the model's context of {context}; lower max_prompt_tokens or the completion"
        )


def resolved(data: BundleArguments, args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The whole recipe, with every default."""
    training: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
    tokens = {name: getattr(args, name, None) for name in ("eos_token", "pad_token")}  # to_dict hides them as secrets
    return {**dataclasses.asdict(data), **training, **tokens, **dataclasses.asdict(model)}


def open_folder(data: BundleArguments, args: TrainConfig, model: ModelArguments, material: Material) -> bool:
    """Open the output folder for this run; True if it is finished.

    Raises InputError for the folder of another run, unless `resume_from_checkpoint` names where to go on with this config,
    and for a finished one that is to be pushed and was not.
    """
    named = args.resume_from_checkpoint
    if named and not _is_complete(Path(named) / "trainer_state.json"):
        raise InputError(f"resume_from_checkpoint: {named} is no complete checkpoint (no trainer_state.json)")
    config = resolved(data, args, model)
    lock = ".lock" if PartialState().is_main_process else ""
    with PartialState().main_process_first():
        done = output.prepare(str(args.output_dir), config, IGNORE, lock, may_change=bool(named), inputs=INPUTS)
    if done:
        if args.push_to_hub and not json.loads((Path(str(args.output_dir)) / output.DONE).read_text()).get("pushed_to"):
            upload = f"hf upload {args.hub_model_id or 'REPOSITORY'} {args.output_dir} . --exclude 'checkpoint-*'"
            raise InputError(f"{args.output_dir}: done already, and push_to_hub pushes as a training ends; push it by {upload}")
        log.info("%s: done already", args.output_dir)
    elif PartialState().is_main_process:
        write_text(Path(str(args.output_dir)) / "prompt.yaml", material.prompter.config.dump())
    return done


def shard_precisely(args: TrainConfig) -> None:
    """Under FSDP2: gradients as shares; in bfloat16 outputs as they are, and gradients summed in float32.

    accelerate would round what the model returns, and so TRL's log-probabilities, to bfloat16: by 0.03 at -10. Each
    micro-batch's gradients are shared out at once: else every GPU holds those of all weights until the last one.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true" or os.environ.get("FSDP_VERSION") != "2":
        return
    settings: Any = args.accelerator_config
    settings.gradient_accumulation_kwargs = {"sync_each_batch": True}
    if args.bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        args.fsdp_plugin_args = {"mixed_precision_policy": policy}


def avoid_cudnn_attention(args: TrainConfig) -> None:
    """On a GPU, no attention by cuDNN, for two reasons.

    Since torch 2.11 its backward gives NaN on Hopper where a padded batch is 64 over a multiple of 128 tokens long (pytorch
    issue 196678; Qwen2.5 meets it). And it makes a plan for each new shape, as every batch of a training is: on an H200 an
    update at new lengths takes 0.543 s with cuDNN and 0.189 s with flash (docs/shared_prefix.md).
    """
    if args.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def model_arguments(args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The trainer's `model`, `peft_config` and `quantization_config`; an adapter folder goes on as the adapter it is."""
    shard_precisely(args)
    avoid_cudnn_attention(args)
    name = str(model.model_name_or_path)
    adapter = base_of(name) != name
    dtype = dtype_of(args, model, args.device.type == "cuda" and (model.use_peft or adapter))
    model = dataclasses.replace(model, dtype=dtype)
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": args.trust_remote_code}
    options |= {"dtype": dtype, "attn_implementation": model.attn_implementation, "revision": model.model_revision}
    quantization = get_quantization_config(model)
    if not adapter:
        args.model_init_kwargs = {**options, **mapping(args.model_init_kwargs)}
        return {"model": name, "peft_config": get_peft_config(model), "quantization_config": quantization}
    from peft import PeftModel

    device = {"device_map": {"": args.device}} if quantization else {}
    base = AutoModelForCausalLM.from_pretrained(base_of(name), quantization_config=quantization, **options, **device)
    return {"model": PeftModel.from_pretrained(base, name, is_trainable=True)}


def last_checkpoint(folder: str) -> str | None:
    """The newest complete checkpoint (its trainer_state.json is written last), or None."""
    states = filter(_is_complete, Path(folder).glob("checkpoint-*/trainer_state.json"))
    newest = max(states, key=lambda path: int(path.parent.name.rpartition("-")[2]), default=None)
    return str(newest.parent) if newest else None


def _where_to_begin(trainer: Trainer) -> str | None:
    if named := trainer.args.resume_from_checkpoint:
        return str(named)
    if newest := last_checkpoint(str(trainer.args.output_dir)):
        log.info("resuming from %s", newest)
    return newest


def _way_on(folder: str) -> str:
    """What the user can do after a step that went wrong; a resumed run keeps the learning rate of its checkpoint."""
    mend = "train with a lower learning_rate in another folder, or remove the row that does it"
    if newest := last_checkpoint(folder):
        return f"{Path(newest).name} is the last good one, and the same command goes on from it; if it comes again, {mend}"
    return f"no checkpoint was saved yet; {mend}"


def _is_complete(state: Path) -> bool:
    try:
        return "global_step" in json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _remove_half_written(folder: str) -> None:
    for checkpoint in Path(folder).glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").exists():
            shutil.rmtree(checkpoint)


def cycle_steps(args: TrainConfig) -> int:
    """Optimizer steps after which GRPO generates anew, and a run can be resumed; TRL counts them in forward passes."""
    if not isinstance(args, GRPOConfig):
        return 1
    passes, a_step = int(args.steps_per_generation or 1) * args.num_iterations, args.gradient_accumulation_steps
    return math.lcm(passes, a_step) // a_step


def run_training(trainer: Trainer) -> None:
    """Train from the last checkpoint, or the one that the recipe names, to the end.

    At SIGTERM and Ctrl-C the step is finished and saved, and SystemExit(143 or 130) raised. Raises RunError at a step after
    which weights, loss or gradient are not finite, and InputError where they are not before the first step.
    """
    ender = stop.StopOnSignal(trainer.accelerator, cycle_steps(trainer.args))  # type: ignore[arg-type]
    trainer.add_callback(finite.StopOnNotFinite(trainer.accelerator))  # before the other, which ends a finished training
    trainer.add_callback(ender)
    folder = str(trainer.args.output_dir)
    try:
        trainer.train(resume_from_checkpoint=_where_to_begin(trainer))
    except stop.AlreadyTrained:
        log.info("%s: its last step was saved before it ended", folder)
        if trainer.args.load_best_model_at_end:
            _load_best(trainer)
    except finite.NotFinite as error:
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
        if not trainer.is_world_process_zero():
            raise SystemExit(1) from None  # one line is enough
        raise RunError(f"{folder}: {error}; {_way_on(folder)}") from None
    except output.WRITE_ERRORS as error:
        if output.no_room(error) and trainer.is_world_process_zero():
            _remove_half_written(folder)
        raise
    if ender.stopped:
        trainer.accelerator.wait_for_everyone()
        number = ender.received[0] if ender.received else signal.SIGTERM  # another process may have got it
        name, step = output.ENDED_BY[number], trainer.state.global_step
        log.info("%s: stopped by %s, step %d is saved; the same command goes on", folder, name, step)
        trainer.accelerator.end_training()
        raise SystemExit(128 + number)


def _load_best(trainer: Trainer) -> None:
    """As at the end of a training; the folder may have been moved since, and its checkpoints know where it was."""
    here = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.best_global_step}"
    if here.is_dir():
        trainer.state.best_model_checkpoint = str(here)
    if trainer.state.best_model_checkpoint:
        trainer._load_best_model()


def describe(config: dict[str, Any], args: TrainConfig, material: Material, trained: str, budget: str, rows: int) -> str:
    """What a dry run shows: config, one example with the trained tokens between ⟦ and ⟧, token budget, steps.

    `rows` counts completions, over all steps of one epoch.
    """
    batch, steps = batch_and_steps(args, rows)
    shown = yaml.safe_dump(json.loads(json.dumps(config, default=str)), sort_keys=False, allow_unicode=True)
    example = material.prompter.text(material.chats[0])
    return (
        f"{shown}\n--- one example, the trained tokens between ⟦ and ⟧\n{example}⟦{trained}⟧\n\n--- budget\n"
        f"longest prompt {material.longest_prompt} tokens, {budget}, model context {material.context} tokens; "
        f"{material.cut_references} references cut\n"
        f"at most {rows} completions an epoch, {batch} a step: {steps} steps\n"
    )


def batch_and_steps(args: TrainConfig, rows: int) -> tuple[int, int]:
    """Completions an optimizer step, and steps of the whole training, where one epoch has so many completions."""
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return batch, args.max_steps if args.max_steps > 0 else math.ceil(math.ceil(rows / batch) * args.num_train_epochs)


def interval(every: float, steps: int) -> float:
    """Steps between two saves or evaluations; below 1 it is a share of the training, as transformers takes it."""
    return every if every >= 1 else max(1.0, steps * every)


def mapping(value: dict[str, Any] | str | None) -> dict[str, Any]:
    """The dict that an argument of TRL's may be; it is text only until it is parsed."""
    return value if isinstance(value, dict) else {}
