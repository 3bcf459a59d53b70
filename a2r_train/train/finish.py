"""The finished folder of a training: model, curves and card, on the hub if asked."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import yaml
from huggingface_hub import HfApi
from transformers import Trainer

from a2r_train import output
from a2r_train.models import base_of
from a2r_train.records import write_text
from a2r_train.train.common import BundleArguments, ModelArguments

log = logging.getLogger(__name__)


def finish(trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str) -> None:
    """Save model, tokenizer, curves and card, push them if asked, and mark the folder as complete.

    The model appears there when it is whole.
    """
    folder = str(trainer.args.output_dir)
    saving = Path(folder) / ".saving"
    trainer.save_model(str(saving), _internal_call=True)  # else transformers pushes the folder as it is now
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        shutil.rmtree(saving / "ref", ignore_errors=True)  # the adapter that training began with, of TRL's KL term
        for file in saving.iterdir():
            file.replace(Path(folder) / file.name)
        saving.rmdir()
        write_text(Path(folder) / "README.md", _card(trainer, data, model, stage, trained_on))
        pushed = {"pushed_to": _push(trainer, folder, stage)} if trainer.args.push_to_hub else {}
        output.finish(folder, {"stage": stage, "steps": trainer.state.global_step, "trained_on": trained_on, **pushed})
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
    if not (trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint):  # the user may have removed it
        return steps
    return f"{steps}, of which step {best} is kept ({trainer.args.metric_for_best_model} {trainer.state.best_metric:.4g})"


def _card(trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str) -> str:
    name = str(model.model_name_or_path)
    adapter = (Path(str(trainer.args.output_dir)) / "adapter_config.json").exists()
    head = {"library_name": "peft" if adapter else "transformers", "tags": ["a2r-train", "trl", stage.lower()]}
    last = {k: v for entry in trainer.state.log_history for k, v in entry.items() if isinstance(v, int | float)}
    metrics = "\n".join(f"| {key} | {value:.4g} |" for key, value in sorted(last.items()))
    reads = "the references of each bundle"
    if data.plain_share:
        reads = f"the problem alone in {data.plain_share:.0%} of the bundles, and {reads} in the others"
    return (
        f"---\n{yaml.safe_dump(head)}---\n# {Path(str(trainer.args.output_dir)).name}\n\n"
        f"A synthesizer: {'a LoRA adapter of' if adapter else 'trained from'} `{base_of(name) if adapter else name}` by {stage}"
        f" (TRL), {_steps(trainer)}.\n\nTrained on {trained_on} from `{data.bundles}`. "
        f"Its prompt shows {reads}. "
        "The prompt is prompt.yaml, the resolved recipe config.yaml, the packages versions.json, the curves "
        f"trainer_state.json.\n\n| metric, last logged | |\n|---|---|\n{metrics}\n"
    )
