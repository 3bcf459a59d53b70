"""One training run: its folder, how it ends, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from accelerate import PartialState
from huggingface_hub import HfApi
from peft import PeftModel
from transformers import Trainer

from a2r_train import output, process
from a2r_train.data.bundles import Bundles
from a2r_train.data.task import difference
from a2r_train.data.trained_on import write_trained_on
from a2r_train.errors import InputError, RunError
from a2r_train.paths import has_data
from a2r_train.prompts import PromptConfig
from a2r_train.records import Bundle, write_text
from a2r_train.train import yellow_checks
from a2r_train.train.arguments import (
    BundleArguments,
    ModelArguments,
    TrainConfig,
    cycle_steps,
    no_batch,
    rows_of_a_batch,
)
from a2r_train.train.bundles import open_bundles, prompt_of_run
from a2r_train.train.callbacks import AlreadyTrained, NotFinite, StopOnNotFinite, StopOnSignal
from a2r_train.train.fused_lora import fuse_lora
from a2r_train.train.model import sharding_of
from a2r_train.train.model_card import card, without_signal
from a2r_train.train.progress import show_progress
from a2r_train.train.resume import (
    check_processes,
    lacks,
    last_checkpoint,
    load_best,
    remove_half_written,
    where_to_begin,
)

log = logging.getLogger(__name__)

# Files and models whose content is part of a run's identity.
INPUTS = (
    "bundles", "validation", "targets", "prompt", "model_name_or_path", "teacher", "match_tokens_of",
)  # fmt: skip
# A run may resume with other values of these: they set how it is shown, stored and distributed, not what it
# learns. The keys of an evaluation are not among them: it samples completions, which changes those of the
# next step, and it decides which checkpoint is kept.
IGNORE = (
    "run_name", "project", "report_to", "disable_tqdm", "log_level", "log_level_replica", "logging_steps",
    "logging_strategy", "logging_first_step", "log_completions", "num_completions_to_print",
    "save_steps", "save_strategy", "save_total_limit", "resume_from_checkpoint",
    "push_to_hub", "hub_model_id", "hub_private_repo", "hub_strategy", "hub_revision",
    "local_rank", "use_cpu", "bf16", "tf32", "deepspeed", "fsdp", "fsdp_config", "ddp_timeout",
    "generation_batch_size", "gradient_checkpointing", "activation_checkpointing",
    "dataloader_num_workers", "dataloader_pin_memory", "dataset_num_proc",
    "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "vllm_enable_sleep_mode", "vllm_group_port",
    "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
)  # fmt: skip


# What a folder may hold before its first step is saved, including what a kill leaves of the first checkpoint.
BEFORE_A_STEP = ("prompt.yaml", "targets.jsonl", "checkpoint-*", "completions", "runs")
# What the sampled targets of a run depend on; before its first checkpoint nothing else is kept.
TARGET_KEYS = (
    "bundles", "prompt", "plain_share", "max_bundles", "model_name_or_path", "teacher", "targets", "seed",
    "chat_template_kwargs", "target_engine", "target_samples", "target_temperature",
    "max_targets_per_problem", "max_target_tokens",
    "rationalised_share", "rationalised_hint",
)  # fmt: skip


def resolved(data: BundleArguments, args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The whole recipe, with every default."""
    training: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
    # to_dict hides these as secrets
    tokens = {name: getattr(args, name, None) for name in ("eos_token", "pad_token")}
    return {**dataclasses.asdict(data), **training, **tokens, **dataclasses.asdict(model)}


def open_folder(
    data: BundleArguments, args: TrainConfig, model: ModelArguments, prompt: PromptConfig, bundles: Bundles
) -> bool:
    """Open the output folder for a run on these bundles; True if it is finished.

    Raises InputError for the folder of another run or of a different number of processes, unless
    `resume_from_checkpoint` says where to continue with this config, and for a finished folder that should
    have been pushed but was not.
    """
    checkpoint, folder = args.resume_from_checkpoint, Path(str(args.output_dir))
    if checkpoint and (lacking := lacks(Path(checkpoint))):
        raise InputError(f"resume_from_checkpoint: {checkpoint} is not a complete checkpoint ({lacking})")
    state, recipe = PartialState(), resolved(data, args, model)
    lock = ".lock" if state.is_main_process else ""
    if not checkpoint:
        _check_prompt(folder, prompt, _fixed(folder, recipe))
    with state.main_process_first():
        done = output.prepare(
            folder, recipe, IGNORE, lock, bool(checkpoint), inputs=INPUTS, fixed=_fixed(folder, recipe)
        )
    newest = last_checkpoint(str(folder))
    if newest and not done and not checkpoint:
        check_processes(Path(newest), state.num_processes, args.save_on_each_node)
    if done:
        _tell_done(args, folder)
    elif state.is_main_process:
        write_text(folder / "prompt.yaml", prompt.dump())
        output.note(folder, bundles.column("verifier").unique().to_pylist())  # they set the rewards
    return done


def check_folder(
    data: BundleArguments, args: TrainConfig, model: ModelArguments, settled: Sequence[str] = ()
) -> None:
    """Raise InputError for a folder whose content `open_folder` would refuse. The keys in `settled` are known
    only once a training runs.
    """
    folder, recipe = Path(str(args.output_dir)), resolved(data, args, model)
    # the passes over a generation may depend on the number of processes, which is different here
    ignore = (*IGNORE, "steps_per_generation", *settled)
    may_change, fixed = bool(args.resume_from_checkpoint), _fixed(folder, recipe)
    output.check(folder, recipe, ignore, may_change, INPUTS, fixed)
    if has_data(data.bundles) and not may_change:
        _check_prompt(
            folder, prompt_of_run(data, model, getattr(args, "chat_template_kwargs", None) or ""), fixed
        )
    if output.stamp(folder):
        _check_pushed(args, folder)


def is_done(data: BundleArguments, args: TrainConfig, model: ModelArguments, prompt: PromptConfig) -> bool:
    """Whether this run is finished, which is then logged; checks and writes nothing."""
    folder = Path(str(args.output_dir))
    done = output.is_done(folder, resolved(data, args, model), IGNORE, INPUTS)
    done = done and not _other_prompt(folder, prompt)
    if done:
        _tell_done(args, folder)
    return done


def _tell_done(args: TrainConfig, folder: Path) -> None:
    _check_pushed(args, folder)
    if PartialState().is_main_process:
        log.info("%s: done already", folder)


def _fixed(folder: Path, recipe: dict[str, Any]) -> tuple[str, ...] | None:
    """The keys that a folder fixes: all of them once one of its steps is saved, before that those of its
    targets.
    """
    if last_checkpoint(str(folder)) or not output.holds_only(folder, *BEFORE_A_STEP):
        return None
    sampled = (folder / "targets.jsonl").exists() and not recipe.get("targets")
    return TARGET_KEYS if sampled else ()


def _check_prompt(folder: Path, prompt: PromptConfig, fixed: Sequence[str] | None) -> None:
    """Raise InputError if the folder's run, or its sampled targets, read another prompt. The recipe may name
    neither: it is that of the bundles' task, or that of the model.
    """
    if (fixed is None or "prompt" in fixed) and (key := _other_prompt(folder, prompt)):
        raise InputError(
            f"{folder}: the prompt has changed since this run ({key}); name another output folder, or remove "
            "this one"
        )


def _other_prompt(folder: Path, prompt: PromptConfig) -> str:
    """The first key in which the prompt differs from that of the folder's run; "" if none does."""
    known = folder / "prompt.yaml"
    return difference(PromptConfig.load(known), prompt) if known.is_file() else ""


def _check_pushed(args: TrainConfig, folder: Path) -> None:
    """Raise InputError for a finished folder that should have been pushed but was not."""
    if args.push_to_hub and not json.loads((folder / output.DONE).read_text()).get("pushed_to"):
        raise InputError(
            f"{args.output_dir}: done already, and push_to_hub pushes only when a training ends; run "
            f"hf upload {args.hub_model_id or 'REPOSITORY'} {args.output_dir} . --exclude 'checkpoint-*'"
        )


def run_training(trainer: Trainer) -> None:
    """Train to the end, from the last checkpoint or the one that the recipe names.

    On SIGTERM or Ctrl-C it finishes and saves the step, and raises SystemExit(143 or 130). Raises RunError
    after a step that leaves weights, loss or gradient not finite, and InputError if the weights are not
    finite before the first step, or if the rows do not fill a batch.
    """
    check_rows(trainer)
    fuse_lora(trainer.model, sharding_of(trainer.args))  # type: ignore[arg-type]
    stopper = StopOnSignal(trainer.accelerator, cycle_steps(trainer.args))  # type: ignore[arg-type]
    # stopper comes last: it raises AlreadyTrained, and the others must have checked the weights by then
    trainer.add_callback(StopOnNotFinite(trainer.accelerator))
    trainer.add_callback(stopper)
    show_progress(trainer)
    log_adapter(trainer)
    folder = str(trainer.args.output_dir)
    try:
        trainer.train(resume_from_checkpoint=where_to_begin(trainer))
    except AlreadyTrained:
        log.info("%s: its last step was saved before it ended", folder)
        if trainer.args.load_best_model_at_end:
            load_best(trainer)
    except NotFinite as error:
        _end_as_not_finite(trainer, error)
    except process.WRITE_ERRORS as error:
        if process.no_room(error) and trainer.is_world_process_zero():
            remove_half_written(folder)
        raise
    finally:
        stopper.restore()
    if stopper.stopped:
        _end_as_stopped(trainer, stopper)
    if trainer.is_world_process_zero() and (few := yellow_checks.few_had_signal(without_signal(trainer))):
        log.warning("%s: %s; see docs/troubleshooting.md", folder, few)


def log_adapter(trainer: Trainer) -> None:
    """Log what is trained, if it is an adapter: PEFT may have chosen its modules."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PeftModel) or not trainer.is_world_process_zero():
        return
    config: Any = model.active_peft_config
    trained, whole = model.get_nb_trainable_parameters()
    modules = getattr(config, "target_modules", None) or ()
    named = modules  # a pattern, or names with or without their layer
    if not isinstance(modules, str):
        named = ", ".join(sorted({name.rpartition(".")[2] for name in modules}))
    log.info(
        "training an adapter: rank %s, on %s; %s of %s parameters (%.2g %%)",
        getattr(config, "r", "-"),
        named or "the modules that it names",
        f"{trained:,}",
        f"{whole:,}",
        100 * trained / whole,
    )


def check_rows(trainer: Trainer) -> None:
    """Raise InputError if the rows do not fill a batch, now that targets have been sampled and packed."""
    args: Any = trainer.args
    rows: Any = trainer.train_dataset
    if len(rows) < rows_of_a_batch(args):
        raise InputError(f"{args.output_dir}: {no_batch(args, len(rows), 'rows')}")


def _end_as_not_finite(trainer: Trainer, error: NotFinite) -> NoReturn:
    """One process reports it in one line, with what the user can do.

    A resumed run keeps the learning rate of its checkpoint.
    """
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    if not trainer.is_world_process_zero():
        raise SystemExit(1) from None
    folder = str(trainer.args.output_dir)
    remedy = "train with a lower learning_rate in another folder, or remove the row that causes it"
    way_on = f"no checkpoint was saved yet; {remedy}"
    if newest := last_checkpoint(folder):
        way_on = (
            f"{Path(newest).name} is the last good one, and the same command goes on from it; "
            f"if it happens again, {remedy}"
        )
    raise RunError(f"{folder}: {error}; {way_on}") from None


def _end_as_stopped(trainer: Trainer, stopper: StopOnSignal) -> NoReturn:
    trainer.accelerator.wait_for_everyone()
    number = stopper.received[0] if stopper.received else signal.SIGTERM  # another process may have got it
    name, step = process.ENDED_BY[number], trainer.state.global_step
    folder = str(trainer.args.output_dir)
    goes_on = "goes on" if last_checkpoint(folder) else "starts over, as it has no optimizer"
    log.info("%s: stopped by %s, step %d is saved; the same command %s", folder, name, step, goes_on)
    trainer.accelerator.end_training()
    raise SystemExit(128 + number)


def finish(
    trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str
) -> None:
    """Save model, tokenizer, curves and card, push them if asked, and mark the folder as complete.

    The model appears in the folder only once it is complete. Raises RunError for a training that made no
    step.
    """
    folder = Path(str(trainer.args.output_dir))
    if not trainer.state.global_step:
        raise RunError(f"{folder}: no step was made, so nothing was trained and no model is saved")
    _save_ends_of_turn(trainer)
    trainer.save_model(
        str(folder / ".saving"), _internal_call=True
    )  # otherwise transformers would push the folder now
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        _move_model(folder / ".saving", folder)
        bundles = open_bundles(data)
        problems = bundles.column("problem").to_pylist()
        write_trained_on(
            folder, str(model.model_name_or_path), stage, data.bundles, problems, _chosen_on(trainer, data)
        )
        write_text(folder / "README.md", card(trainer, data, model, stage, trained_on, _explorer(bundles[0])))
        pushed = {"pushed_to": _push(trainer, folder, stage)} if trainer.args.push_to_hub else {}
        output.finish(
            folder, {"stage": stage, "steps": trainer.state.global_step, "trained_on": trained_on, **pushed}
        )
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def _chosen_on(trainer: Trainer, data: BundleArguments) -> tuple[str, list[str]] | None:
    """The validation bundles that chose the best step, and their problems: to a test they are as trained on.
    None where the last step is kept.
    """
    path = str(getattr(trainer.args, "validation", ""))
    if not (path and trainer.args.load_best_model_at_end):
        return None
    read = open_bundles(dataclasses.replace(data, bundles=path, max_bundles=0))
    used = read.first(len(trainer.eval_dataset))  # type: ignore[arg-type]
    return path, used.column("problem").to_pylist()


def _explorer(bundle: Bundle) -> str:
    """The model that wrote the references of a bundle; "" if unknown or several."""
    models = {reference.model for reference in bundle.references}
    return models.pop() if len(models) == 1 else ""


def _move_model(saving: Path, folder: Path) -> None:
    """Move all but `ref`, the adapter that TRL's KL term compares with: the one that training began with."""
    shutil.rmtree(saving / "ref", ignore_errors=True)
    for file in saving.iterdir():
        file.replace(folder / file.name)
    saving.rmdir()


def _save_ends_of_turn(trainer: Trainer) -> None:
    """Let the token that ends a turn also end a completion wherever the model is served."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    settings, tokenizer = getattr(model, "generation_config", None), trainer.processing_class
    end = getattr(tokenizer, "eos_token_id", None)
    if settings is None or end is None:
        return
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if end not in ends:
        settings.eos_token_id = sorted({end, *(one for one in ends if one is not None)})


def _push(trainer: Trainer, folder: Path, stage: str) -> str:
    """Push all but checkpoints and hidden files; returns the repository.

    An error leaves the folder unfinished, so that the same command pushes again.
    """
    repository, step = str(trainer.hub_model_id), trainer.state.global_step
    HfApi().upload_folder(
        repo_id=repository,
        folder_path=folder,
        revision=trainer.args.hub_revision,
        commit_message=f"{stage} by a2r-train, {step} steps",
        ignore_patterns=["checkpoint-*", ".*"],
    )
    log.info("%s: pushed to %s", folder, repository)
    return repository
