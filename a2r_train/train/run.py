"""The run of a training: its folder, where it resumes, how it ends, what it leaves."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from huggingface_hub import HfApi
from transformers import Trainer

from a2r_train import output, process
from a2r_train.errors import InputError, RunError
from a2r_train.models import base_of
from a2r_train.records import write_text
from a2r_train.train.arguments import BundleArguments, ModelArguments, TrainConfig, cycle_steps
from a2r_train.train.bundles import Material
from a2r_train.train.callbacks import AlreadyTrained, NotFinite, StopOnNotFinite, StopOnSignal

# A run may go on with other values of these: how it is shown, kept and spread, not what it learns. What an
# evaluation takes is not among them: it draws completions, after which the next step draws others, and it
# chooses what is kept.
INPUTS = ("bundles", "validation", "targets", "prompt")  # files, whose content belongs to a run

log = logging.getLogger(__name__)


IGNORE = (
    *("run_name", "project", "report_to", "local_rank", "use_cpu", "bf16", "tf32", "disable_tqdm"),
    *(
        "log_level",
        "log_level_replica",
        "logging_steps",
        "logging_strategy",
        "logging_first_step",
        "log_completions",
    ),
    *(
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "generation_batch_size",
        "deepspeed",
        "fsdp",
        "fsdp_config",
    ),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataset_num_proc", "ddp_timeout"),
    *("gradient_checkpointing", "activation_checkpointing"),
    *(
        "vllm_gpu_memory_utilization",
        "vllm_tensor_parallel_size",
        "vllm_enable_sleep_mode",
        "vllm_group_port",
    ),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout"),
    *(
        "resume_from_checkpoint",
        "push_to_hub",
        "hub_model_id",
        "hub_private_repo",
        "hub_strategy",
        "hub_revision",
    ),
    "num_completions_to_print",
)


def resolved(data: BundleArguments, args: TrainConfig, model: ModelArguments) -> dict[str, Any]:
    """The whole recipe, with every default."""
    training: dict[str, Any] = args.to_dict()  # type: ignore[no-untyped-call]
    tokens = {
        name: getattr(args, name, None) for name in ("eos_token", "pad_token")
    }  # to_dict hides them as secrets
    return {**dataclasses.asdict(data), **training, **tokens, **dataclasses.asdict(model)}


def open_folder(data: BundleArguments, args: TrainConfig, model: ModelArguments, material: Material) -> bool:
    """Open the output folder for this run; True if it is finished.

    Raises InputError for the folder of another run, unless `resume_from_checkpoint` names where to go on with
    this config, and for a finished one that is to be pushed and was not.
    """
    named = args.resume_from_checkpoint
    if named and not _is_complete(Path(named) / "trainer_state.json"):
        raise InputError(f"resume_from_checkpoint: {named} is no complete checkpoint (no trainer_state.json)")
    config = resolved(data, args, model)
    lock = ".lock" if PartialState().is_main_process else ""
    with PartialState().main_process_first():
        done = output.prepare(
            str(args.output_dir), config, IGNORE, lock, may_change=bool(named), inputs=INPUTS
        )
    if done:
        if args.push_to_hub and not json.loads((Path(str(args.output_dir)) / output.DONE).read_text()).get(
            "pushed_to"
        ):
            upload = (
                f"hf upload {args.hub_model_id or 'REPOSITORY'} {args.output_dir} . --exclude 'checkpoint-*'"
            )
            raise InputError(
                f"{args.output_dir}: done already, and push_to_hub pushes "
                f"as a training ends; push it by {upload}"
            )
        log.info("%s: done already", args.output_dir)
    elif PartialState().is_main_process:
        write_text(Path(str(args.output_dir)) / "prompt.yaml", material.prompter.config.dump())
    return done


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
    """What the user can do after a step that went wrong; a resumed run keeps the learning rate of its
    checkpoint.
    """
    mend = "train with a lower learning_rate in another folder, or remove the row that does it"
    if newest := last_checkpoint(folder):
        return (
            f"{Path(newest).name} is the last good one, and the same command "
            f"goes on from it; if it comes again, {mend}"
        )
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


def run_training(trainer: Trainer) -> None:
    """Train from the last checkpoint, or the one that the recipe names, to the end.

    At SIGTERM and Ctrl-C the step is finished and saved, and SystemExit(143 or 130) raised. Raises RunError
    at a step after which weights, loss or gradient are not finite, and InputError where they are not before
    the first step.
    """
    ender = StopOnSignal(trainer.accelerator, cycle_steps(trainer.args))  # type: ignore[arg-type]
    trainer.add_callback(
        StopOnNotFinite(trainer.accelerator)
    )  # before the other, which ends a finished training
    trainer.add_callback(ender)
    folder = str(trainer.args.output_dir)
    try:
        trainer.train(resume_from_checkpoint=_where_to_begin(trainer))
    except AlreadyTrained:
        log.info("%s: its last step was saved before it ended", folder)
        if trainer.args.load_best_model_at_end:
            _load_best(trainer)
    except NotFinite as error:
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
        if not trainer.is_world_process_zero():
            raise SystemExit(1) from None  # one line is enough
        raise RunError(f"{folder}: {error}; {_way_on(folder)}") from None
    except process.WRITE_ERRORS as error:
        if process.no_room(error) and trainer.is_world_process_zero():
            _remove_half_written(folder)
        raise
    if ender.stopped:
        trainer.accelerator.wait_for_everyone()
        number = ender.received[0] if ender.received else signal.SIGTERM  # another process may have got it
        name, step = process.ENDED_BY[number], trainer.state.global_step
        log.info("%s: stopped by %s, step %d is saved; the same command goes on", folder, name, step)
        trainer.accelerator.end_training()
        raise SystemExit(128 + number)


def _load_best(trainer: Trainer) -> None:
    """As at the end of a training; the folder may have been moved since, and its checkpoints know where it
    was.
    """
    here = Path(str(trainer.args.output_dir)) / f"checkpoint-{trainer.state.best_global_step}"
    if here.is_dir():
        trainer.state.best_model_checkpoint = str(here)
    if trainer.state.best_model_checkpoint:
        trainer._load_best_model()


def finish(
    trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str
) -> None:
    """Save model, tokenizer, curves and card, push them if asked, and mark the folder as complete.

    The model appears there when it is whole.
    """
    folder = str(trainer.args.output_dir)
    saving = Path(folder) / ".saving"
    trainer.save_model(str(saving), _internal_call=True)  # else transformers pushes the folder as it is now
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        shutil.rmtree(
            saving / "ref", ignore_errors=True
        )  # the adapter that training began with, of TRL's KL term
        for file in saving.iterdir():
            file.replace(Path(folder) / file.name)
        saving.rmdir()
        write_text(Path(folder) / "README.md", _card(trainer, data, model, stage, trained_on))
        pushed = {"pushed_to": _push(trainer, folder, stage)} if trainer.args.push_to_hub else {}
        output.finish(
            folder, {"stage": stage, "steps": trainer.state.global_step, "trained_on": trained_on, **pushed}
        )
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def _push(trainer: Trainer, folder: str, stage: str) -> str:
    """All but checkpoints and hidden files, to the repository that is returned.

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


def _steps(trainer: Trainer) -> str:
    best, steps = trainer.state.best_global_step, f"{trainer.state.global_step} steps"
    if not (
        trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint
    ):  # the user may have removed it
        return steps
    return (
        f"{steps}, of which step {best} is kept ({trainer.args.metric_for_best_model} "
        f"{trainer.state.best_metric:.4g})"
    )


def _card(trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str) -> str:
    name = str(model.model_name_or_path)
    adapter = (Path(str(trainer.args.output_dir)) / "adapter_config.json").exists()
    head = {
        "library_name": "peft" if adapter else "transformers",
        "tags": ["a2r-train", "trl", stage.lower()],
    }
    last = {
        k: v for entry in trainer.state.log_history for k, v in entry.items() if isinstance(v, int | float)
    }
    metrics = "\n".join(f"| {key} | {value:.4g} |" for key, value in sorted(last.items()))
    reads = "the references of each bundle"
    if data.plain_share:
        reads = f"the problem alone in {data.plain_share:.0%} of the bundles, and {reads} in the others"
    return (
        f"---\n{yaml.safe_dump(head)}---\n# {Path(str(trainer.args.output_dir)).name}\n\n"
        f"A synthesizer: {'a LoRA adapter of' if adapter else 'trained from'} "
        f"`{base_of(name) if adapter else name}` by {stage}"
        f" (TRL), {_steps(trainer)}.\n\nTrained on {trained_on} from `{data.bundles}`. "
        f"Its prompt shows {reads}. "
        "The prompt is prompt.yaml, the resolved recipe config.yaml, the packages versions.json, the curves "
        f"trainer_state.json.\n\n| metric, last logged | |\n|---|---|\n{metrics}\n"
    )
