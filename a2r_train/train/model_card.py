"""The model card of a trained model: what it is, how it was trained, and how to use it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import Trainer

from a2r_train.models import base_of
from a2r_train.prompts import PromptConfig
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.generated import STATE, budget_of

PAPER = "arXiv [2509.22044](https://arxiv.org/abs/2509.22044)"
TEMPLATE = Path(__file__).parent / "card.md.j2"
METHODS = {
    "SFT": "supervised fine-tuning on verified answers to reference bundles",
    "GRPO": "reinforcement learning (GRPO) with a verifiable reward",
}

DEAD = "frac_reward_zero_std"  # share of the groups of a step whose rewards are all equal


def card(
    trainer: Trainer,
    data: BundleArguments,
    model: ModelArguments,
    stage: str,
    trained_on: str,
    explorer: str = "",
) -> str:
    """README.md in the hub's format; call it once the model is in the output folder.

    `explorer` wrote the references; "" if it is unknown, or there were several.

    `a2r evaluate` adds the table of the model against its rivals.
    """
    folder, name = Path(str(trainer.args.output_dir)), str(model.model_name_or_path)
    adapter = (folder / "adapter_config.json").exists()
    base, answers_alone = base_of(name), _prompt_in(folder).reference == "answer"
    head = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=base if _is_on_hub(base) else None,
        tags=["a2r-train", "synthesizer", "trl", stage.lower()],
    )
    made = ModelCard.from_template(
        head,
        template_path=str(TEMPLATE),
        name=folder.name,
        repository=trainer.hub_model_id if trainer.args.push_to_hub else str(folder),
        base=base,
        explorer=explorer or base,
        start=name,
        adapter=adapter,
        method=METHODS.get(stage, stage),
        steps=_steps(trainer),
        generated=_generated(trainer),
        no_signal=without_signal(trainer) == 1.0,
        rewards=_rewards(trainer),
        trained_on=trained_on,
        bundles=data.bundles,
        shown=_shown(data, answers_alone),
        reads_references=data.plain_share < 1,
        answers_alone=answers_alone,
        paper=PAPER,
        tokens=_tokens(trainer),
    )
    return str(made)


def without_signal(trainer: Trainer) -> float:
    """Share of the groups, over all logged steps of GRPO, whose rewards were equal and gave no gradient; 0 if
    none was logged.
    """
    shares = [row[DEAD] for row in trainer.state.log_history if DEAD in row]
    return sum(shares) / len(shares) if shares else 0.0


def _rewards(trainer: Trainer) -> str:
    """The rewards of GRPO with their weights; "" if there is only the verified one."""
    names = getattr(trainer, "reward_func_names", [])
    weights = getattr(trainer.args, "reward_weights", None) or [1.0] * len(names)
    named = [f"`{name}` {weight:g}" for name, weight in zip(names, weights, strict=True)]
    return ", ".join(named) if len(named) > 1 else ""


def _is_on_hub(name: str) -> bool:
    """The hub accepts only its own names; a local path would be a dead link."""
    return name.count("/") == 1 and not Path(name).exists() and not name.startswith((".", "/", "~"))


def _steps(trainer: Trainer) -> str:
    best, steps = trainer.state.best_global_step, f"{trainer.state.global_step} steps"
    if not (trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint):
        return steps  # the user may have removed the best checkpoint
    metric = f"{trainer.args.metric_for_best_model} {trainer.state.best_metric:.4g}"
    return f"{steps}, of which step {best} is kept ({metric})"


def _generated(trainer: Trainer) -> str:
    """Tokens that GRPO generated, next to those of the run that it matches; "" for SFT."""
    tokens = (getattr(trainer.state, "stateful_callbacks", None) or {}).get(STATE, {}).get("generated_tokens")
    if not tokens:
        return ""
    other = getattr(trainer.args, "match_tokens_of", "")
    if not other:
        return f"{tokens:,}"
    budget = budget_of(other, 0)
    return f"{tokens:,}, to match the {budget.tokens:,} of the {budget.steps} steps of `{other}`"


def _prompt_in(folder: Path) -> PromptConfig:
    """The prompt that the model was trained with."""
    path = folder / "prompt.yaml"
    return PromptConfig.load(str(path)) if path.is_file() else PromptConfig()


def _shown(data: BundleArguments, answers_alone: bool) -> str:
    seen = "answers of the references" if answers_alone else "references"
    references = f"the problem with the {seen} of its bundle"
    if not data.plain_share:
        return references
    if data.plain_share == 1:
        return "the problem alone"
    return f"the problem alone in {data.plain_share:.0%} of the bundles, and {references} in the others"


def _tokens(trainer: Trainer) -> int | None:
    """The longest completion of the training, if its recipe sets it."""
    lengths = [getattr(trainer.args, name, None) for name in ("max_completion_length", "max_target_tokens")]
    return next((int(length) for length in lengths if length), None)
