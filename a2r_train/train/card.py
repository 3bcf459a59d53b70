"""The card of a trained model: what it was trained from, on what, and the last metrics."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import Trainer

from a2r_train.models import base_of
from a2r_train.train.arguments import BundleArguments, ModelArguments


def card(trainer: Trainer, data: BundleArguments, model: ModelArguments, stage: str, trained_on: str) -> str:
    """README.md with the hub's metadata, once the model is in the output folder."""
    name, folder = str(model.model_name_or_path), Path(str(trainer.args.output_dir))
    adapter = (folder / "adapter_config.json").exists()
    metadata = ModelCardData(
        library_name="peft" if adapter else "transformers", tags=["a2r-train", "trl", stage.lower()]
    )
    source = f"a LoRA adapter of `{base_of(name)}`" if adapter else f"trained from `{name}`"
    text = (
        f"# {folder.name}\n\nA synthesizer: {source} by {stage} (TRL), {_steps(trainer)}.\n\n"
        f"Trained on {trained_on} from `{data.bundles}`. Its prompt shows {_shown(data)}. "
        "The prompt is prompt.yaml, the resolved recipe config.yaml, the packages versions.json, the curves "
        f"trainer_state.json.\n\n| metric, last logged | |\n|---|---|\n{_metrics(trainer)}\n"
    )
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n{text}"))


def _steps(trainer: Trainer) -> str:
    best, steps = trainer.state.best_global_step, f"{trainer.state.global_step} steps"
    if not (trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint):
        return steps  # the user may have removed the best one
    metric = f"{trainer.args.metric_for_best_model} {trainer.state.best_metric:.4g}"
    return f"{steps}, of which step {best} is kept ({metric})"


def _shown(data: BundleArguments) -> str:
    references = "the references of each bundle"
    if not data.plain_share:
        return references
    return f"the problem alone in {data.plain_share:.0%} of the bundles, and {references} in the others"


def _metrics(trainer: Trainer) -> str:
    """Rows of a table; of each metric what was logged last."""
    last = {
        name: value
        for entry in trainer.state.log_history
        for name, value in entry.items()
        if isinstance(value, int | float)
    }
    return "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(last.items()))
